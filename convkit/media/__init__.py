"""Open images safely, and sample frames of videos."""

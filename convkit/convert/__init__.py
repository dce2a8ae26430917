"""Convert a source into a dataset directory."""

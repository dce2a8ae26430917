"""Processes of a run: launch, world, failure propagation."""

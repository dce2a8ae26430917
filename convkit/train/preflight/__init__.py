"""Checks before the first step: memory, and a dry run of the checkpoint."""

"""Lint row files and the images they name, and write the validation receipt."""

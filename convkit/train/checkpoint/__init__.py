"""Training checkpoints: write, find, restore."""

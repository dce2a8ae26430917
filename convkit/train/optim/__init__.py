"""Optimizer and sharding of its state."""

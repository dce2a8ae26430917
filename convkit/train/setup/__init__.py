"""Prepare a loaded model for training: trainable parameters, precision, compilation."""

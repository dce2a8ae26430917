"""Phi-3-vision and Phi-3.5-vision on today's transformers: official checkpoints in and out, no remote code."""

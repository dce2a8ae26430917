"""Phi-3-vision and Phi-3.5-vision for current transformers: official checkpoints, no remote code."""

"""Attention, LoRA, quantized and fused kernels that the model families share."""

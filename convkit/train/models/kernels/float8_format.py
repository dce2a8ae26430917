"""Constants of the float8 format (e4m3), shared by the PyTorch and Triton implementations."""

import torch

STORED = torch.float8_e4m3fn
LARGEST = torch.finfo(STORED).max
TINY = 1e-30
"""Smallest absolute maximum of a row that a scale is computed for, so that rows of zeros have one too."""

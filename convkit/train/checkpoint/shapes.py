"""Shapes of parameters that are not there whole."""

import torch
from torch import nn


def shape(parameter: nn.Parameter) -> torch.Size:
    """Of a whole parameter: also where several numbers share a byte, or DeepSpeed keeps a piece on each process."""
    packed = getattr(parameter, "quant_state", None)
    found = packed.shape if packed is not None else getattr(parameter, "ds_shape", parameter.shape)
    return torch.Size(found)


def numel(parameter: nn.Parameter) -> int:
    """Numbers in a whole parameter."""
    return shape(parameter).numel()

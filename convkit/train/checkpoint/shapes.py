"""Full shapes of quantized and sharded parameters."""

import torch
from torch import nn


def shape(parameter: nn.Parameter) -> torch.Size:
    """Return the shape of the full parameter, also if it is packed in 4 bits or sharded by DeepSpeed."""
    packed = getattr(parameter, "quant_state", None)
    found = packed.shape if packed is not None else getattr(parameter, "ds_shape", parameter.shape)
    return torch.Size(found)


def numel(parameter: nn.Parameter) -> int:
    """Return the number of elements of the full parameter."""
    return shape(parameter).numel()

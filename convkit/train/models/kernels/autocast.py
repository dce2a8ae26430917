"""Compute dtype under autocast."""

import torch
from torch import Tensor


def computed_in(x: Tensor) -> torch.dtype:
    """The type that a product with a tensor is computed in: autocast's, where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

"""Layers compiled by torch: elementwise operations between products become one kernel, and keep less for backward."""

from collections.abc import Collection

import torch
from torch import nn


def compile_layers(model: nn.Module, names: Collection[str], backend: str = "inductor") -> None:
    """Compile the modules of these classes, each class once, for any number of tokens."""
    # One version for training and one for a forward pass alone, times those with and without adapters, and spare.
    torch._dynamo.config.recompile_limit = max(16, torch._dynamo.config.recompile_limit)
    for module in model.modules():
        if type(module).__name__ in names:
            module.compile(dynamic=True, backend=backend)

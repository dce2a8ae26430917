"""Compile layers with torch.compile, which fuses elementwise operations and keeps fewer activations."""

from collections.abc import Collection

import torch
import torch._functorch.config
from torch import nn

ALL, EXPENSIVE = 1.0, 0.9
"""Activation budgets: keep all activations that save time, or recompute those that are cheap. The latter keeps 50 kB
per token and layer of Phi-3.5, the former 78."""


def compile_layers(model: nn.Module, names: Collection[str], backend: str = "inductor") -> None:
    """Compile the modules whose class has one of these names, once per class, for any number of tokens."""
    set_activation_budget(ALL)
    # All classes share the recompile limit. Each has versions with and without a gradient of its input, with and
    # without checkpointing, and for one document, several of similar lengths, or of different lengths. The last text
    # layer has its own versions, also for one or no supervised token: about 16 per run, or 28 with those. The rest is
    # a reserve.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # Constants such as the attention scaling never change: as variables they caused all layers to be traced twice.
    torch._dynamo.config.specialize_float = True
    for module in model.modules():
        if type(module).__name__ in names:
            module.compile(dynamic=True, backend=backend)


def is_compiled(model: nn.Module) -> bool:
    """Return whether any module of the model is compiled."""
    return any(module._compiled_call_impl is not None for module in model.modules())


def set_activation_budget(share: float) -> None:
    """Set the share of activations that compiled layers keep, `ALL` or `EXPENSIVE`, and discard compiled code."""
    torch._functorch.config.activation_memory_budget = share
    torch._dynamo.reset()

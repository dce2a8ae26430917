"""Layers compiled by torch: what is elementwise becomes one kernel, and keeps less for backward."""

from collections.abc import Collection

import torch
import torch._functorch.config
from torch import nn

ALL, DEAR = 1.0, 0.9
"""Of the activations that would be kept for speed alone, the share that is: all; or all but what is cheap to compute
again, which makes 50 kB a token and layer of Phi-3.5 instead of 78."""


def compile_layers(model: nn.Module, names: Collection[str], backend: str = "inductor") -> None:
    """Compile the modules of these classes, each class once, for any number of tokens."""
    keep(ALL)
    # All classes share the limit; each has versions with and without a gradient of its input, that keep activations or
    # compute twice, and for packs of one document, of several alike and of unlike ones. The last layer of text has its
    # own, with others where one token is learnt, or none: some 16 a run, 28 with those, and spare.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # Numbers such as the scaling of scores never change: as variables they made all layers be traced twice.
    torch._dynamo.config.specialize_float = True
    for module in model.modules():
        if type(module).__name__ in names:
            module.compile(dynamic=True, backend=backend)


def is_compiled(model: nn.Module) -> bool:
    """Whether some of its modules are."""
    return any(module._compiled_call_impl is not None for module in model.modules())


def keep(share: float) -> None:
    """What is compiled from now on keeps this share, `ALL` or `DEAR`; what was compiled is compiled anew."""
    torch._functorch.config.activation_memory_budget = share
    torch._dynamo.reset()

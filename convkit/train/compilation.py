"""Layers compiled by torch: elementwise operations between products become one kernel, and keep less for backward."""

from collections.abc import Collection

import torch
import torch._functorch.config
from torch import nn

_KEPT = 0.9
"""Share of the activations that would be kept for speed alone."""


def compile_layers(model: nn.Module, names: Collection[str], backend: str = "inductor") -> None:
    """Compile the modules of these classes, each class once, for any number of tokens."""
    # What is cheap to compute again is not kept: of a layer of Phi-3.5 50 kB a token instead of 78.
    torch._functorch.config.activation_memory_budget = _KEPT
    # All classes share the limit; each has versions with and without a gradient of its input, that keep activations or
    # compute twice, and for packs of one document, of several alike and of unlike ones. The last layer of text has its
    # own, with others where one token is learnt, or none: some 16 a run, 28 with those, and spare.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for module in model.modules():
        if type(module).__name__ in names:
            module.compile(dynamic=True, backend=backend)

"""Activation (gradient) checkpointing in as few layers as GPU memory requires.

On one GPU, or with LoRA, `fit_to_memory` measures the activations that a layer of each class keeps for the heaviest
micro-batch of the schedule. Checkpointing is then disabled in as many layers as fit in memory. Unless nearly all
compiled layers fit, all are recompiled with selective recomputation. The trained weights are independent of the choice,
except for bfloat16 rounding in compiled layers.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from convkit.train.setup.compilation import EXPENSIVE, is_compiled, set_activation_budget

_MEMORY_SHARE = 0.86
"""Default share of the GPU's memory; the rest is for other micro-batches and for fragmentation."""
_ENOUGH = 0.95
"""Share of compiled layers that must fit to skip selective recomputation: checkpointing the few others is cheaper than
recomputation in all layers, and needs no second compilation."""
_RETRIES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the layers that were estimated to fit, tried in turn."""

Layers = dict[type, list[Any]]
"""Layers by class, in model order."""
Measured = tuple[float, list[tuple[Any, int]]]
"""Free bytes with checkpointing in all layers; layers and the bytes of their activations, in the order of choice."""


def enable_checkpointing(model: Any) -> None:
    """Enable gradient checkpointing in all layers."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def fit_to_memory(
    model: nn.Module,
    device: torch.device,
    limit: float | None,
    forward: Callable[[], Any],
    step: Callable[[], Any],
    all_ranks: Callable[[bool], bool] = bool,
) -> str:
    """Disable checkpointing in as many layers as fit, those with the most computation per byte first.

    Args:
        limit: memory limit in GiB; by default most of the GPU's memory.
        forward: runs the forward pass of the heaviest micro-batch, and returns an object that keeps its graph alive.
        step: runs forward, backward and update on it; all ranks call it together.
        all_ranks: returns whether its argument is true on all ranks; they call it together.

    Returns:
        A message that describes the result; empty if no layer supports checkpointing.

    Raises:
        OutOfMemoryError: a step does not fit even with checkpointing in all layers.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    most = limit * 2**30 if limit else _MEMORY_SHARE * total
    layers = _layers_by_class(model)
    if not layers:
        return ""
    compiled, measure = is_compiled(model), partial(_measure, layers, device, most, forward, step)
    if compiled:
        nearly_all = _keep_all_activations(layers, measure, step, all_ranks)
        if nearly_all is not None:
            return _describe(layers, nearly_all)
        _set_kept(layers, set())
        torch.cuda.empty_cache()
        set_activation_budget(EXPENSIVE)
    room, order = measure()
    chosen = _layers_that_fit(order, room)
    for share in _RETRIES:
        kept = set(chosen[: int(share * len(chosen))])
        _set_kept(layers, kept)
        if _step_fits(step, last=not share):
            break
        torch.cuda.empty_cache()  # only here: until now the exception referenced the step's tensors
    message = _describe(layers, kept) + ", selective recomputation in the others" * compiled
    return message if room >= 0 or not limit else f"{message}; memory still exceeds --memory_limit {limit:g}"


def _keep_all_activations(
    layers: Layers, measure: Callable[[], Measured], step: Callable[[], Any], all_ranks: Callable[[bool], bool]
) -> set[Any] | None:
    """Disable checkpointing in nearly all layers and return them; None if they do not fit."""
    try:
        room, order = measure()
        kept = set(_layers_that_fit(order, room))
    except torch.OutOfMemoryError:
        kept = set()
    if not all_ranks(len(kept) >= _ENOUGH * len(_flatten(layers))):
        return None
    _set_kept(layers, kept)
    return kept if all_ranks(_step_fits(step, last=False)) else None


def _set_kept(layers: Layers, kept: set[Any]) -> None:
    """Disable checkpointing in these layers, and enable it in the others."""
    for layer in _flatten(layers):
        layer.gradient_checkpointing = layer not in kept


def _describe(layers: Layers, kept: set[Any]) -> str:
    count = len(_flatten(layers))
    return f"gradient checkpointing in {count - len(kept)} of {count} layers"


def _flatten(layers: Layers) -> list[Any]:
    return [layer for several in layers.values() for layer in several]


def _measure(
    layers: Layers,
    device: torch.device,
    most: float,
    forward: Callable[[], Any],
    step: Callable[[], Any],
) -> Measured:
    torch.cuda.reset_peak_memory_stats(device)
    step()
    room = most - torch.cuda.max_memory_allocated(device)
    base = _activation_bytes(forward, device)
    order: list[tuple[Any, int]] = []
    for several in sorted(layers.values(), key=_size, reverse=True):  # larger layers save more computation per byte
        # Measure a middle layer. The first may need no gradient of its input. The last keeps less if few tokens are
        # supervised, and as much as the others if all are.
        middle = several[(len(several) - 1) // 2]
        middle.gradient_checkpointing = False
        each = max(0, _activation_bytes(forward, device) - base)
        middle.gradient_checkpointing = True
        order += [(layer, each) for layer in reversed(several)]  # the last layers' activations are freed first
    return room, order


def _step_fits(step: Callable[[], Any], last: bool) -> bool:
    """Return whether a step fits in memory; raises OutOfMemoryError if this was the last attempt."""
    try:
        step()
    except torch.OutOfMemoryError:
        if last:
            raise
        return False
    return True


def _layers_by_class(model: nn.Module) -> Layers:
    """Return the checkpointed layers with trainable parameters; others never run, or keep no activations."""
    found: Layers = defaultdict(list)
    for module in model.modules():
        able = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
        if able and any(parameter.requires_grad for parameter in module.parameters()):
            found[type(module)].append(module)
    return found


def _size(layers: list[Any]) -> int:
    return sum(parameter.numel() for parameter in layers[0].parameters())


def _activation_bytes(forward: Callable[[], Any], device: torch.device) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    before = torch.cuda.memory_allocated(device)
    graph = forward()
    kept = torch.cuda.memory_allocated(device) - before
    del graph
    return kept


def _layers_that_fit(order: list[tuple[Any, int]], room: float) -> list[Any]:
    """Return the first layers in this order whose activations fit together."""
    chosen = []
    for layer, each in order:
        room -= each
        if room < 0:
            break
        chosen.append(layer)
    return chosen

"""Which layers compute their activations twice instead of keeping them: as few as memory allows.

On one GPU or with adapters, `fit` measures what a layer of each kind keeps for the heaviest pack of the plan, and lets
as many layers keep it as there is room for. Compiled layers, if not all of them can keep everything, are compiled anew
to keep less. The weights that come of it do not depend on any of that, but for bfloat16's rounding in compiled layers.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from convkit.train.setup.compilation import DEAR, is_compiled, keep

_USUAL_SHARE = 0.86
"""Of a GPU's memory; the rest is for what other packs and their fragments need."""
_ENOUGH = 0.95
"""Of compiled layers: if so many can keep everything, the few others compute twice. That costs less than all computing
again what is cheap, and nothing is compiled once more."""
_RETREATS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the layers that were thought to fit, tried in turn."""

Kinds = dict[type, list[Any]]
"""Layers by their kind, in their order."""
Measured = tuple[float, list[tuple[Any, int]]]
"""Bytes left where all compute twice; and layers, those to keep activations first, with the bytes of these."""


def enable(model: Any) -> None:
    """All layers compute twice."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def fit(
    model: nn.Module,
    device: torch.device,
    limit: float | None,
    forward: Callable[[], Any],
    step: Callable[[], Any],
    agreed: Callable[[bool], bool] = bool,
) -> str:
    """Let as many layers keep their activations as fit, most saved work a byte first; returns what was done, in words.

    Args:
        limit: GiB; most of the GPU's memory if not given.
        forward: of the heaviest pack; returns what keeps its graph alive.
        step: forward, backward and update on it, which all processes take together.
        agreed: whether something holds on all processes; they ask it together.

    Raises:
        OutOfMemoryError: it does not fit although all layers compute twice.
    """
    total = torch.cuda.get_device_properties(device).total_memory
    most = limit * 2**30 if limit else _USUAL_SHARE * total
    layers = _by_kind(model)
    if not layers:
        return ""
    compiled, measure = is_compiled(model), partial(_measured, layers, device, most, forward, step)
    if compiled:
        everything = _keeping_everything(layers, measure, step, agreed)
        if everything is not None:
            return _told(layers, everything)
        _let_keep(layers, set())
        torch.cuda.empty_cache()
        keep(DEAR)
    room, order = measure()
    chosen = _affordable(order, room)
    for share in _RETREATS:
        kept = set(chosen[: int(share * len(chosen))])
        _let_keep(layers, kept)
        if _fits(step, last=not share):
            break
        torch.cuda.empty_cache()  # only now: the error held the step's tensors
    told = _told(layers, kept) + ", the others what is cheap" * compiled
    return told if room >= 0 or not limit else f"{told}, and still --memory_limit {limit:g} is exceeded"


def _keeping_everything(
    layers: Kinds, measure: Callable[[], Measured], step: Callable[[], Any], agreed: Callable[[bool], bool]
) -> set[Any] | None:
    """The layers that keep all they have, if nearly all can; None if not, or if that does not fit after all."""
    try:
        room, order = measure()
        kept = set(_affordable(order, room))
    except torch.OutOfMemoryError:
        kept = set()
    if not agreed(len(kept) >= _ENOUGH * len(_all(layers))):
        return None
    _let_keep(layers, kept)
    return kept if agreed(_fits(step, last=False)) else None


def _let_keep(layers: Kinds, kept: set[Any]) -> None:
    """These keep their activations, and the others compute twice."""
    for layer in _all(layers):
        layer.gradient_checkpointing = layer not in kept


def _told(layers: Kinds, kept: set[Any]) -> str:
    count = len(_all(layers))
    return f"checkpointing: {count - len(kept)} of {count} layers compute twice"


def _all(layers: Kinds) -> list[Any]:
    return [layer for kind in layers.values() for layer in kind]


def _measured(
    layers: Kinds,
    device: torch.device,
    most: float,
    forward: Callable[[], Any],
    step: Callable[[], Any],
) -> Measured:
    torch.cuda.reset_peak_memory_stats(device)
    step()
    room = most - torch.cuda.max_memory_allocated(device)
    base = _kept(forward, device)
    order: list[tuple[Any, int]] = []
    for kind in sorted(layers.values(), key=_size, reverse=True):  # the larger the layer, the more work a byte saves
        # The first may need no gradient of its input; the last keeps little where little is learnt, as it may be in
        # this pack, and as much as the others in one that is all learnt.
        usual = kind[(len(kind) - 1) // 2]
        usual.gradient_checkpointing = False
        each = max(0, _kept(forward, device) - base)
        usual.gradient_checkpointing = True
        order += [(layer, each) for layer in reversed(kind)]  # what is kept last is given back first
    return room, order


def _fits(step: Callable[[], Any], last: bool) -> bool:
    """Whether there is memory for a step; raises OutOfMemoryError if this was the last way to take it."""
    try:
        step()
    except torch.OutOfMemoryError:
        if last:
            raise
        return False
    return True


def _by_kind(model: nn.Module) -> Kinds:
    """The layers in which something is trained, in their order; others never run, or keep nothing."""
    found: Kinds = defaultdict(list)
    for module in model.modules():
        able = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
        if able and any(parameter.requires_grad for parameter in module.parameters()):
            found[type(module)].append(module)
    return found


def _size(layers: list[Any]) -> int:
    return sum(parameter.numel() for parameter in layers[0].parameters())


def _kept(forward: Callable[[], Any], device: torch.device) -> int:
    """Bytes that wait for the backward pass."""
    before = torch.cuda.memory_allocated(device)
    graph = forward()
    kept = torch.cuda.memory_allocated(device) - before
    del graph
    return kept


def _affordable(order: list[tuple[Any, int]], room: float) -> list[Any]:
    """Layers in this order, while there is room."""
    chosen = []
    for layer, each in order:
        room -= each
        if room < 0:
            break
        chosen.append(layer)
    return chosen

"""Wrap the real sharding and data loader so that a timeline records where each section of a step begins."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from convkit.train.bench import timeline as t
from convkit.train.bench.timeline import Timeline
from convkit.train.data.loader import Batch
from convkit.train.models.family import ModelFamily
from convkit.train.optim.sharding.base import Sharding
from convkit.train.setup.trainable import unwrapped_name


class InstrumentedSharding:
    """A sharding that records its phases in a timeline. Everything else is delegated to the real one."""

    def __init__(self, sharding: Sharding, family: ModelFamily, timeline: Timeline) -> None:
        self._sharding, self._timeline = sharding, timeline
        _add_hooks(sharding.model, family, timeline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sharding, name)

    def forward(self, **batch: Any) -> Any:
        self._timeline.enter(t.LANGUAGE)
        return self._sharding.forward(**batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        self._timeline.enter(t.HEAD_BACK)
        self._sharding.backward(loss, last)
        self._timeline.enter(t.OTHER)

    def clip(self, max_norm: float) -> float:
        self._timeline.enter(t.CLIP)
        return self._sharding.clip(max_norm)

    def update(self, rate: float) -> bool:
        self._timeline.enter(t.OPTIMIZER)
        skipped = self._sharding.update(rate)
        self._timeline.enter(t.OTHER)
        return skipped


def instrumented_batches(batches: Iterator[Batch], timeline: Timeline) -> Iterator[Batch]:
    """Yield batches, and record the time spent waiting for each."""
    while True:
        timeline.enter(t.DATA)
        batch = next(batches, None)
        if batch is None:
            return
        timeline.enter(t.TRANSFER)
        yield batch


def _add_hooks(model: nn.Module, family: ModelFamily, timeline: Timeline) -> None:
    """Record when image embeddings and last hidden states are computed, and when their gradients are."""
    modules = {unwrapped_name(name): module for name, module in model.named_modules()}
    vision = family.vision_modules[0]

    def after_vision(module: nn.Module, inputs: Any, output: Any) -> None:
        timeline.enter(t.LANGUAGE)
        _on_gradient(output, timeline, t.VISION_BACK)

    def after_language(module: nn.Module, inputs: Any, output: Any) -> None:
        timeline.enter(t.HEAD)
        _on_gradient(output.last_hidden_state, timeline, t.LANGUAGE_BACK)

    modules[vision].register_forward_pre_hook(lambda module, inputs: timeline.enter(t.VISION))
    modules[vision].register_forward_hook(after_vision)
    modules[vision.rpartition(".")[0]].register_forward_hook(after_language)


def _on_gradient(output: torch.Tensor, timeline: Timeline, section: str) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: timeline.enter(section))  # type: ignore[no-untyped-call]

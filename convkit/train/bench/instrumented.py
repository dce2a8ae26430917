"""The real sharding and the real batches, with marks on a timeline where one part of a step ends and another begins."""

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


class Watched:
    """A sharding that tells a timeline what it does; all else it leaves to the real one."""

    def __init__(self, sharding: Sharding, family: ModelFamily, timeline: Timeline) -> None:
        self._sharding, self._timeline = sharding, timeline
        _watch(sharding.model, family, timeline)

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


def watched(batches: Iterator[Batch], timeline: Timeline) -> Iterator[Batch]:
    """Batches, and how long they were waited for."""
    while True:
        timeline.enter(t.DATA)
        batch = next(batches, None)
        if batch is None:
            return
        timeline.enter(t.TRANSFER)
        yield batch


def _watch(model: nn.Module, family: ModelFamily, timeline: Timeline) -> None:
    """Marks where the images' embeddings and the last hidden states are made, and where their gradients come back."""
    modules = {unwrapped_name(name): module for name, module in model.named_modules()}
    vision = family.vision_modules[0]

    def seen(module: nn.Module, inputs: Any, output: Any) -> None:
        timeline.enter(t.LANGUAGE)
        _on_gradient(output, timeline, t.VISION_BACK)

    def read(module: nn.Module, inputs: Any, output: Any) -> None:
        timeline.enter(t.HEAD)
        _on_gradient(output.last_hidden_state, timeline, t.LANGUAGE_BACK)

    modules[vision].register_forward_pre_hook(lambda module, inputs: timeline.enter(t.VISION))
    modules[vision].register_forward_hook(seen)
    modules[vision.rpartition(".")[0]].register_forward_hook(read)


def _on_gradient(output: torch.Tensor, timeline: Timeline, section: str) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: timeline.enter(section))  # type: ignore[no-untyped-call]

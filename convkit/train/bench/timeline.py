"""Which part of a step takes how long, as the device sees it."""

import time
from collections import defaultdict
from itertools import pairwise
from typing import Any, Protocol

import torch

DATA, TRANSFER = "data wait", "transfer"
VISION, LANGUAGE, HEAD = "vision forward", "language forward", "head and loss forward"
HEAD_BACK, LANGUAGE_BACK, VISION_BACK = "head and loss backward", "language backward", "vision backward"
CLIP, OPTIMIZER, OTHER = "clip", "optimizer", "other"
SECTIONS = (
    *(DATA, TRANSFER, VISION, LANGUAGE, HEAD, HEAD_BACK, LANGUAGE_BACK, VISION_BACK),
    *(CLIP, OPTIMIZER, OTHER),
)


class _Stamp(Protocol):
    def elapsed_time(self, end: Any, /) -> Any:
        """Milliseconds from here to another one."""


class _Instant:
    """A moment of a machine without GPU."""

    def __init__(self) -> None:
        self._seconds = time.perf_counter()

    def elapsed_time(self, end: "_Instant") -> float:
        return 1000 * (end._seconds - self._seconds)


class Timeline:
    """Every moment of a step belongs to one section.

    On a GPU moments are those at which it comes to them: what the processor does meanwhile counts only where the GPU
    waits for it. Nothing is waited for before `steps` is asked.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[list[tuple[str, _Stamp]]] = []

    def begin(self) -> None:
        """A step begins; the one before ends."""
        self._steps.append([])
        self.enter(OTHER)

    def enter(self, section: str) -> None:
        """From here on time is the section's."""
        if self._steps:
            self._steps[-1].append((section, self._stamp()))

    def steps(self) -> list[dict[str, float]]:
        """Milliseconds by section, of each step but the last one, which has not ended."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        ends = [step[0] for step in self._steps[1:]]
        return [_sections([*step, end]) for step, end in zip(self._steps, ends, strict=False)]

    def _stamp(self) -> _Stamp:
        if self._device.type != "cuda":
            return _Instant()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _sections(marks: list[tuple[str, _Stamp]]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for (section, begin), (_, end) in pairwise(marks):
        found[section] += begin.elapsed_time(end)
    return dict(found)

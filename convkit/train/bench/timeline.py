"""Measure how long each section of a training step takes, with CUDA events on a GPU."""

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
        """Return the milliseconds from this stamp to another one."""


class _CpuStamp:
    """A time stamp on a machine without a GPU."""

    def __init__(self) -> None:
        self._seconds = time.perf_counter()

    def elapsed_time(self, end: "_CpuStamp") -> float:
        return 1000 * (end._seconds - self._seconds)


class Timeline:
    """Divides the time of each step into sections without gaps.

    On a GPU the stamps are CUDA events in its stream, so CPU time counts only while the GPU waits for it. Recording
    does not synchronize; only `steps` does.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[list[tuple[str, _Stamp]]] = []

    def begin(self) -> None:
        """Begin a step, and end the one before."""
        self._steps.append([])
        self.enter(OTHER)

    def enter(self, section: str) -> None:
        """Assign the time from now on to a section."""
        if self._steps:
            self._steps[-1].append((section, self._stamp()))

    def steps(self) -> list[dict[str, float]]:
        """Return milliseconds by section for each step that has ended, which excludes the last one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        ends = [step[0] for step in self._steps[1:]]
        return [_sum_by_section([*step, end]) for step, end in zip(self._steps, ends, strict=False)]

    def _stamp(self) -> _Stamp:
        if self._device.type != "cuda":
            return _CpuStamp()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _sum_by_section(marks: list[tuple[str, _Stamp]]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for (section, begin), (_, end) in pairwise(marks):
        found[section] += begin.elapsed_time(end)
    return dict(found)

"""What a device can do at most, and how much of the time it does nothing."""

import gc
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from convkit.train.metrics.throughput import GIB

_SIDES = (4096, 6144, 8192)
_SMALL_SIDES = (512,)
_TIMES, _ROUNDS = 10, 5


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most that square matrix products come to, in FLOP/s: the best of several sizes and rounds."""
    sides = _SIDES if device.type == "cuda" else _SMALL_SIDES
    return max(_products(side, device, dtype) for side in sides)


def _products(side: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    seconds = []
    for _ in range(_ROUNDS):
        wait(device)
        began = time.perf_counter()
        for _ in range(_TIMES):
            torch.mm(a, b, out=out)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 * _TIMES / min(seconds)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Let go of what no name holds any more: models in cycles, compiled code, the allocator's reserves."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        forget_peaks(device)


@dataclass(frozen=True)
class Peaks:
    """The most memory of a GPU that was in use, and that the allocator kept."""

    allocated_gib: float
    reserved_gib: float


def forget_peaks(device: torch.device) -> None:
    """Peaks of memory are those from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> Peaks | None:
    """The peaks since they were last forgotten; None without a GPU."""
    if device.type != "cuda":
        return None
    return Peaks(torch.cuda.max_memory_allocated(device) / GIB, torch.cuda.max_memory_reserved(device) / GIB)


def busy(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds in which a GPU does anything at all, copies included, while it does some work.

    Work takes longer while it is looked at; what the GPU itself does for it does not.
    """
    return covered((event.start_ns(), event.end_ns()) for event in kernels(device, work)) / 1e9


def kernels(device: torch.device, work: Callable[[], object]) -> list[Any]:
    """What a GPU does for some work, kernels and copies, as torch's profiler saw it."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        work()
        wait(device)
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events = seen.profiler.kineto_results.events()
    return [event for event in events if event.device_type().name == "CUDA" and not event.is_user_annotation()]


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """What spans, given as begin and end, cover together."""
    total = 0
    reached = -math.inf
    for begin, end in sorted(spans):
        total += max(0, end - int(max(begin, reached)))
        reached = max(reached, end)
    return total

"""Measure a device: peak matrix-product throughput, peak memory, and the kernels that it runs."""

import gc
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from convkit.train.metrics.throughput import GIB

_CUDA_SIDES = (4096, 6144, 8192)
_CPU_SIDES = (512,)
_REPEATS, _ROUNDS = 10, 5


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the highest throughput of square matrix products in FLOP/s, over several sizes and rounds."""
    sides = _CUDA_SIDES if device.type == "cuda" else _CPU_SIDES
    return max(_matmul_throughput(side, device, dtype) for side in sides)


def _matmul_throughput(side: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    seconds = []
    for _ in range(_ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        for _ in range(_REPEATS):
            torch.mm(a, b, out=out)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 * _REPEATS / min(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Free unreferenced models (reference cycles included), compiled code, and the allocator's cache."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        reset_peak_memory(device)


@dataclass(frozen=True)
class PeakMemory:
    """The peak memory of a GPU: allocated by tensors, and reserved by the allocator."""

    allocated_gib: float
    reserved_gib: float


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring peak memory from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gpu_memory(device: torch.device) -> PeakMemory | None:
    """Return the peak memory since the last reset, or None without a GPU."""
    if device.type != "cuda":
        return None
    return PeakMemory(torch.cuda.max_memory_allocated(device) / GIB, torch.cuda.max_memory_reserved(device) / GIB)


def busy_seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return the seconds in which a GPU runs kernels or copies while it does some work.

    The profiler slows the work down, but not the kernels and copies themselves.
    """
    return covered_length((event.start_ns(), event.end_ns()) for event in profile_kernels(device, work)) / 1e9


def profile_kernels(device: torch.device, work: Callable[[], object]) -> list[Any]:
    """Return the kernels and copies that a GPU runs for some work, as recorded by torch.profiler."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiled:
        work()
        synchronize(device)
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events = profiled.profiler.kineto_results.events()
    return [event for event in events if event.device_type().name == "CUDA" and not event.is_user_annotation()]


def covered_length(spans: Iterable[tuple[int, int]]) -> int:
    """Return the length of the union of (begin, end) spans."""
    total = 0
    reached = -math.inf
    for begin, end in sorted(spans):
        total += max(0, end - int(max(begin, reached)))
        reached = max(reached, end)
    return total

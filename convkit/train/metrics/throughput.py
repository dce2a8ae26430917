"""Throughput of a run: images and tokens per second, peak memory and MFU."""

import resource
import sys
from typing import Any

import torch

from convkit.train.config import Config
from convkit.train.data.index import Index
from convkit.train.data.schedule import BatchSchedule
from convkit.train.distributed.world import World

GIB = 2**30
PEAKS = {
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "A40": 150,
    "A10": 125,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "V100": 125,
    "T4": 65,
}
"""Vendors' dense half-precision TFLOP/s by GPU name; a longer name comes before its prefix."""


def peak_flops(config: Config, device: torch.device) -> float | None:
    """Return the GPU's peak FLOP/s in the computation type; None if it is unknown."""
    if device.type != "cuda" or config.precision == "float32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for known, peak in PEAKS.items() if known in name), None)


class Throughput:
    """Computes the throughput of each step.

    Args:
        flops_per_token: FLOPs of forward and backward per token.
    """

    def __init__(
        self, schedule: BatchSchedule, index: Index, config: Config, world: World, flops_per_token: int
    ) -> None:
        self._schedule, self._index, self._world = schedule, index, world
        peak = peak_flops(config, world.device)
        self._mfu_per_rate = flops_per_token / (peak * world.size) if peak else None
        self._text = ""

    def step(self, step: int, loss: float, seconds: float) -> dict[str, Any]:
        """Return the throughput of a step over all ranks, and this rank's peak memory."""
        rows = self._schedule.batch(step)
        images = sum(self._index.images[row] for row in rows)
        tokens_per_second = self._schedule.tokens(rows) / seconds
        figures: dict[str, Any] = {
            "images": images,
            "images_per_second": round(images / seconds, 3),
            "tokens_per_second": round(tokens_per_second, 1),
            "memory_gib": round(peak_memory(self._world.device) / GIB, 3),
        }
        if self._mfu_per_rate is not None:
            figures["mfu"] = round(tokens_per_second * self._mfu_per_rate, 4)
        self._text = (
            f"loss {loss:.3f} · {images / seconds:.2f} img/s · {tokens_per_second:,.0f} tokens/s · "
            f"{figures['memory_gib']:.1f} GiB" + (f" · MFU {figures['mfu']:.0%}" if "mfu" in figures else "")
        )
        return figures

    def text(self) -> str:
        """Return the last step's figures as a short text for the progress bar."""
        return self._text


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of the GPU, or of the whole process without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Summarize the measured steps as throughput, MFU, memory and time per section."""

from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from convkit.train.bench.flops import PARTS
from convkit.train.bench.run import StepCounts, StepTimings
from convkit.train.bench.timeline import SECTIONS
from convkit.train.data.index import Index
from convkit.train.data.schedule import BatchSchedule

TERA = 1e12


@dataclass(frozen=True)
class Measurement:
    """The results of the measured steps. Rates are totals over all of these steps."""

    images_per_second: float
    rows_per_second: float
    tokens_per_second: float
    median_rows_per_second: float
    """Median over single steps."""
    tflop_per_row: dict[str, float]
    """Mean model FLOPs of a row, by part of the model; see `convkit.train.bench.flops`."""
    tflop_per_second: float
    mfu: float
    """Model FLOPs utilization, relative to the throughput of matrix products in this process."""
    allocated_gib: float | None
    reserved_gib: float | None
    """Peak memory of the measured steps."""
    gpu_idle: float | None
    """The share of time without kernels or copies. Busy time comes from profiled steps, step time from the same
    steps without the profiler."""
    ms_per_step: dict[str, float]
    """Median milliseconds by section."""
    seconds_per_step: list[float]
    micro_batches_per_step: float
    tokens_per_micro_batch: float
    build_seconds: float
    warmup_seconds: float
    losses: list[float]
    preflight: list[str]
    """Messages of the preflight check."""

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON, with five significant digits."""
        return {name: rounded(value) for name, value in asdict(self).items()}


def summarize(
    timings: StepTimings,
    steps: StepCounts,
    schedule: BatchSchedule,
    index: Index,
    flops_per_row: list[dict[str, int]],
    build_seconds: float,
    peak: float,
) -> Measurement:
    """Compute the measurement from step timings.

    Args:
        flops_per_row: FLOPs by part of the model, for each row of the measured steps.
        peak: the throughput of matrix products on this device, in FLOP/s.
    """
    rows = [row for step in steps.measured_range for row in schedule.batch(step)]
    micro_batches = [micro_batch for step in steps.measured_range for micro_batch in schedule.micro_batches(step)]
    seconds = [sum(step.values()) / 1000 for step in timings.sections]
    total = sum(seconds)
    flops = sum(sum(parts.values()) for parts in flops_per_row)
    memory, busy = timings.memory, timings.busy_seconds
    return Measurement(
        images_per_second=sum(index.images[row] for row in rows) / total,
        rows_per_second=len(rows) / total,
        tokens_per_second=sum(index.tokens[row] for row in rows) / total,
        median_rows_per_second=median(
            len(schedule.batch(step)) / time for step, time in zip(steps.measured_range, seconds, strict=True)
        ),
        tflop_per_row={part: mean(parts.get(part, 0) for parts in flops_per_row) / TERA for part in PARTS},
        tflop_per_second=flops / total / TERA,
        mfu=flops / total / peak,
        allocated_gib=memory.allocated_gib if memory else None,
        reserved_gib=memory.reserved_gib if memory else None,
        gpu_idle=None if busy is None else max(0.0, 1 - busy / sum(seconds[-len(steps.profiled_range) :])),
        ms_per_step={name: median(step.get(name, 0.0) for step in timings.sections) for name in SECTIONS},
        seconds_per_step=seconds,
        micro_batches_per_step=len(micro_batches) / steps.measured,
        tokens_per_micro_batch=mean(schedule.tokens(micro_batch) for micro_batch in micro_batches),
        build_seconds=build_seconds,
        warmup_seconds=timings.warmup_seconds,
        losses=timings.losses,
        preflight=timings.preflight,
    )


def rounded(value: Any) -> Any:
    """Round every float in a JSON value to five significant digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value

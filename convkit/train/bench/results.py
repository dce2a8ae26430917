"""What was seen in the measured steps, as figures."""

from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

from convkit.train.bench.flops import PARTS
from convkit.train.bench.run import Seen, Steps
from convkit.train.bench.timeline import SECTIONS
from convkit.train.data.index import Index
from convkit.train.data.schedule import BatchSchedule

TERA = 1e12


@dataclass(frozen=True)
class Figures:
    """Rates are those of all measured steps together."""

    images_a_second: float
    rows_a_second: float
    tokens_a_second: float
    rows_a_second_median: float
    """Of the single steps."""
    tflop_a_row: dict[str, float]
    """The work of a row by parts of the model, a mean; see `convkit.train.bench.flops`."""
    tflop_a_second: float
    mfu: float
    """Its share in what matrix products came to in this run."""
    allocated_gib: float | None
    reserved_gib: float | None
    """At most, in these steps."""
    idle: float | None
    """The share of the time in which the GPU did nothing: what it did in the profiled steps, over what these took
    when they were not."""
    ms_a_step: dict[str, float]
    """By sections, medians."""
    seconds_a_step: list[float]
    packs_a_step: float
    tokens_a_pack: float
    building_s: float
    warming_s: float
    losses: list[float]
    preflight: list[str]
    """What a run says before its first step."""

    def recorded(self) -> dict[str, Any]:
        """As JSON, in five digits."""
        return {name: rounded(value) for name, value in asdict(self).items()}


def figures(
    seen: Seen,
    steps: Steps,
    plan: BatchSchedule,
    index: Index,
    costs: list[dict[str, int]],
    building: float,
    peak: float,
) -> Figures:
    """Make figures.

    Args:
        costs: operations by parts of the model, of each row of the measured steps.
        building: seconds that it took to build the model.
        peak: what matrix products come to, in FLOP/s.
    """
    rows = [row for step in steps.counted for row in plan.batch(step)]
    packs = [pack for step in steps.counted for pack in plan.micro_batches(step)]
    seconds = [sum(step.values()) / 1000 for step in seen.sections]
    total = sum(seconds)
    flops = sum(sum(parts.values()) for parts in costs)
    return Figures(
        images_a_second=sum(index.images[row] for row in rows) / total,
        rows_a_second=len(rows) / total,
        tokens_a_second=sum(index.tokens[row] for row in rows) / total,
        rows_a_second_median=median(
            len(plan.batch(step)) / time for step, time in zip(steps.counted, seconds, strict=True)
        ),
        tflop_a_row={part: mean(parts.get(part, 0) for parts in costs) / TERA for part in PARTS},
        tflop_a_second=flops / total / TERA,
        mfu=flops / total / peak,
        allocated_gib=seen.peaks.allocated_gib if seen.peaks else None,
        reserved_gib=seen.peaks.reserved_gib if seen.peaks else None,
        idle=None if seen.busy is None else max(0.0, 1 - seen.busy / sum(seconds[-len(steps.again) :])),
        ms_a_step={name: median(step.get(name, 0.0) for step in seen.sections) for name in SECTIONS},
        seconds_a_step=seconds,
        packs_a_step=len(packs) / steps.measured,
        tokens_a_pack=mean(plan.tokens(pack) for pack in packs),
        building_s=building,
        warming_s=seen.warming,
        losses=seen.losses,
        preflight=seen.preflight,
    )


def rounded(value: Any) -> Any:
    """In five digits, all that is in it."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value

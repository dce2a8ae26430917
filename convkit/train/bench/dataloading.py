"""`convkit bench data`: how fast rows become batches, and where the time goes."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.table import Table

from convkit.train.bench.data import Data, named_data_set, read
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import write
from convkit.train.bench.workloads import WORKLOADS
from convkit.train.data.loader import MicroBatches, batches
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.models import row_images
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.image_processing import cut_tiles, hd_size, resize
from convkit.utils.progress import Progress, ProgressBars

ENCODE, DECODE, SCALE, TILES, REST = STAGES = ("headers, tokens", "decode", "scale", "tiles", "tensors, batch")


@dataclass(frozen=True)
class Feeding:
    """What was seen."""

    workload: str
    num_crops: int
    rows: int
    images: int
    ms_an_image: dict[str, float]
    """By stages, in one process."""
    images_a_second: dict[int, float]
    """By the number of worker processes."""
    workers_for: dict[float, int]
    """How many it takes for so many images a second, at the speed of one."""

    def recorded(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "hardware": hardware(World(0, 1, torch.device("cpu"))).model_dump(exclude={"platform"}),
            "versions": versions(),
            "workload": self.workload,
            "num_crops": self.num_crops,
            "rows": self.rows,
            "images": self.images,
            "ms_an_image": {stage: round(ms, 3) for stage, ms in self.ms_an_image.items()},
            "images_a_second": {str(workers): round(rate, 2) for workers, rate in self.images_a_second.items()},
            "workers_for": {str(rate): workers for rate, workers in self.workers_for.items()},
        }


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    data_dir: Path | None
    split: str
    workload: str
    """Without a directory: one of `WORKLOADS`."""
    num_crops: int | None
    """Those of the workload if not given."""


def feed(source: Source, rows: int, workers: Sequence[int], needs: Sequence[float], bars: ProgressBars) -> Feeding:
    """Measure.

    Args:
        rows: how many become batches in each measurement; those of the data in turn.
        workers: how many processes, in turn.
        needs: images a second.

    Raises:
        ConvkitError: the data set cannot be read.
    """
    workload = WORKLOADS[source.workload]
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        folder = Path(scratch)
        family = RandomPhi3V(
            folder / "model", "tiny", source.num_crops or workload.num_crops, torch.device("cpu"), seed=0
        )
        if source.data_dir:
            named = named_data_set(source.data_dir)
            data = read(source.data_dir, source.split, family, sys.maxsize, False, bars)
        else:
            named, data = source.workload, write(workload, rows, family, folder / "data")
        return _measured(named, data, family, rows, workers, needs, bars)


def _measured(
    workload: str,
    data: Data,
    family: Phi3VFamily,
    rows: int,
    workers: Sequence[int],
    needs: Sequence[float],
    bars: ProgressBars,
) -> Feeding:
    numbers = list(islice(cycle(range(len(data.index))), rows))
    images = sum(data.index.images[number] for number in numbers)
    with bars("one process", "rows") as update, _one_thread():
        stages = _stages(data, family, numbers, update)
    rates = {count: _rate(data, family, numbers, count) for count in workers}
    each = {stage: 1000 * seconds / max(1, images) for stage, seconds in stages.items()}
    alone = rates.get(1) or 1000 / sum(each.values())
    return Feeding(workload, family.num_crops, rows, images, each, rates, {need: ceil(need / alone) for need in needs})


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _stages(data: Data, family: Phi3VFamily, numbers: Sequence[int], update: Progress) -> dict[str, float]:
    """Seconds of all rows; what a batch takes beyond its parts is the rest."""
    packs, watch = MicroBatches(data.index, data.images, family), _Watch()
    for done, number in enumerate(numbers, 1):
        row = data.index.row(number)
        with watch(REST):
            packs.batch((number,))
        with watch(ENCODE):
            family.length(row, data.images)
        with watch(DECODE):
            found = row_images.load(row, data.images)
        for picture in found:
            size = hd_size(*picture.size, family.num_crops)
            with watch(SCALE):
                large = resize(picture, size)
            with watch(TILES):
                cut_tiles(large, size)
        update(done, len(numbers))
    seconds = watch.seconds
    parts = {stage: seconds[stage] for stage in STAGES[:-1]}
    return {**parts, REST: max(0.0, seconds[REST] - sum(parts.values()))}


class _Watch:
    """Adds up the seconds of stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


def _rate(data: Data, family: Phi3VFamily, numbers: Sequence[int], workers: int) -> float:
    """Images a second, from the first batch on: processes have started by then."""
    packs = MicroBatches(data.index, data.images, family)
    stream = batches(packs, iter([(number,) for number in numbers]), workers)
    next(stream)
    began = time.perf_counter()
    images = sum(len(batch.get("image_sizes", ())) for batch in stream)
    return images / (time.perf_counter() - began)


def render(seen: Feeding) -> Iterator[Table]:
    """For the terminal."""
    stages = Table("one process", "ms an image", title=f"{seen.rows:,} rows, {seen.images:,} images")
    for stage, milliseconds in seen.ms_an_image.items():
        stages.add_row(stage, f"{milliseconds:.2f}")
    stages.add_row("all", f"{sum(seen.ms_an_image.values()):.2f}")
    yield stages
    rates = Table("workers", "images/s")
    for workers, rate in seen.images_a_second.items():
        rates.add_row(str(workers), f"{rate:.1f}")
    yield rates
    if seen.workers_for:
        needs = Table("images/s needed", "workers")
        for need, workers in seen.workers_for.items():
            needs.add_row(f"{need:g}", str(workers))
        yield needs

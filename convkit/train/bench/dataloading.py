"""Measure data loading: how fast rows become batches, and which stage takes the time."""

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

from convkit.train.bench.data import BenchData, dataset_label, index_split
from convkit.train.bench.options import DataLoadingOptions
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import write_dataset
from convkit.train.bench.workloads import WORKLOADS
from convkit.train.data.loader import MicroBatches, batches
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.models import row_images
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.image_processing import cut_tiles, hd_size, resize
from convkit.utils.progress import Progress, ProgressBars

TOKENIZE, DECODE, RESIZE, TILES, COLLATE = STAGES = (
    *("image headers, tokenizing", "decoding", "resizing", "cutting tiles"),
    "tensors, collating",
)


@dataclass(frozen=True)
class LoadingResult:
    """The measured speed of data loading."""

    workload: str
    num_crops: int
    rows: int
    images: int
    ms_per_image: dict[str, float]
    """By stage, in one process."""
    images_per_second: dict[int, float]
    """By number of worker processes."""
    workers_for: dict[float, int]
    """Worker processes needed for each target rate, from the rate of one worker."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON, with hardware and versions."""
        return {
            "hardware": hardware(World(0, 1, torch.device("cpu"))).model_dump(exclude={"platform"}),
            "versions": versions(),
            "workload": self.workload,
            "num_crops": self.num_crops,
            "rows": self.rows,
            "images": self.images,
            "ms_per_image": {stage: round(ms, 3) for stage, ms in self.ms_per_image.items()},
            "images_per_second": {str(workers): round(rate, 2) for workers, rate in self.images_per_second.items()},
            "workers_for": {str(rate): workers for rate, workers in self.workers_for.items()},
        }


def measure_loading(options: DataLoadingOptions, bars: ProgressBars) -> LoadingResult:
    """Load rows in one process to time the stages, then with worker processes to measure throughput.

    Raises:
        ConvkitError: the dataset cannot be read.
    """
    workload = WORKLOADS[options.workload]
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        folder = Path(scratch)
        family = RandomPhi3V(
            folder / "model", "tiny", options.num_crops or workload.num_crops, torch.device("cpu"), seed=0
        )
        if options.data_dir:
            label = dataset_label(options.data_dir)
            data = index_split(options.data_dir, options.split, family, sys.maxsize, False, bars)
        else:
            label, data = options.workload, write_dataset(workload, options.rows, family, folder / "data")
        return _measure(label, data, family, options, bars)


def _measure(
    label: str, data: BenchData, family: Phi3VFamily, options: DataLoadingOptions, bars: ProgressBars
) -> LoadingResult:
    numbers = list(islice(cycle(range(len(data.index))), options.rows))
    images = sum(data.index.images[number] for number in numbers)
    with bars("one process", "rows") as update, _one_thread():
        stages = _stage_seconds(data, family, numbers, update)
    rates = {count: _images_per_second(data, family, numbers, count) for count in options.worker_counts()}
    ms_per_image = {stage: 1000 * seconds / max(1, images) for stage, seconds in stages.items()}
    one_worker = rates.get(1) or 1000 / sum(ms_per_image.values())
    workers_for = {rate: ceil(rate / one_worker) for rate in options.target_rate or []}
    return LoadingResult(label, family.num_crops, options.rows, images, ms_per_image, rates, workers_for)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread, as in a worker process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stage_seconds(data: BenchData, family: Phi3VFamily, numbers: Sequence[int], update: Progress) -> dict[str, float]:
    """Return the seconds per stage for all rows. Collating is the rest of a batch's time."""
    micro_batches, timer = MicroBatches(data.index, data.images, family), _Timer()
    for done, number in enumerate(numbers, 1):
        row = data.index.row(number)
        with timer(COLLATE):
            micro_batches.batch((number,))
        with timer(TOKENIZE):
            family.length(row, data.images)
        with timer(DECODE):
            images = row_images.load(row, data.images)
        for image in images:
            size = hd_size(*image.size, family.num_crops)
            with timer(RESIZE):
                resized = resize(image, size)
            with timer(TILES):
                cut_tiles(resized, size)
        update(done, len(numbers))
    parts = {stage: timer.seconds[stage] for stage in STAGES[:-1]}
    return {**parts, COLLATE: max(0.0, timer.seconds[COLLATE] - sum(parts.values()))}


class _Timer:
    """Adds up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


def _images_per_second(data: BenchData, family: Phi3VFamily, numbers: Sequence[int], workers: int) -> float:
    """Return the throughput after the first batch, so that the start of the workers is not counted."""
    micro_batches = MicroBatches(data.index, data.images, family)
    stream = batches(micro_batches, iter([(number,) for number in numbers]), workers)
    next(stream)
    began = time.perf_counter()
    images = sum(len(batch.get("image_sizes", ())) for batch in stream)
    return images / (time.perf_counter() - began)


def render(result: LoadingResult) -> Iterator[Table]:
    """Yield the tables for the terminal: stages, throughput, and workers per target rate."""
    stages = Table("stage, one process", "ms/image", title=f"{result.rows:,} rows, {result.images:,} images")
    for stage, milliseconds in result.ms_per_image.items():
        stages.add_row(stage, f"{milliseconds:.2f}")
    stages.add_row("total", f"{sum(result.ms_per_image.values()):.2f}")
    yield stages
    rates = Table("workers", "images/s")
    for workers, rate in result.images_per_second.items():
        rates.add_row(str(workers), f"{rate:.1f}")
    yield rates
    if result.workers_for:
        needed = Table("target images/s", "workers needed")
        for rate, workers in result.workers_for.items():
            needed.add_row(f"{rate:g}", str(workers))
        yield needed

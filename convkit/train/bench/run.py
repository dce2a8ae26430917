"""The steps of a measurement: as in a run, with a timeline beside them."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convkit.train.bench import gpu
from convkit.train.bench.data import Data
from convkit.train.bench.instrumented import watched
from convkit.train.bench.timeline import Timeline
from convkit.train.data.loader import Batch, MicroBatches, batches
from convkit.train.metrics.log import Log
from convkit.train.metrics.throughput import Throughput
from convkit.train.models.family import ModelFamily
from convkit.train.preflight import memory
from convkit.train.trainer import Trainer
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class Steps:
    """How many of each kind, one after the other."""

    warm: int
    """Not measured: shapes are compiled, memory is taken."""
    measured: int
    profiled: int
    """The last of them once more, on a GPU, for what it does in them; torch's profiler slows them down."""

    @property
    def total(self) -> int:
        """Of the plan."""
        return self.warm + self.measured

    @property
    def counted(self) -> range:
        """The numbers of those that are measured."""
        return range(self.warm, self.total)

    @property
    def again(self) -> range:
        """The numbers of those that are profiled."""
        return range(max(self.warm, self.total - self.profiled), self.total)


@dataclass(frozen=True)
class Seen:
    """What was seen of the measured steps."""

    sections: list[dict[str, float]]
    """Milliseconds of each step."""
    losses: list[float]
    peaks: gpu.Peaks | None
    busy: float | None
    """Seconds in which the GPU did anything in the profiled steps; None if there were none."""
    warming: float
    """Seconds that went before, from the first forward pass on."""
    preflight: list[str]
    """What a run says before its first step."""


class Run:
    """Steps of a trainer, with everything that a run has around them but checkpoints."""

    def __init__(self, trainer: Trainer, data: Data, family: ModelFamily, timeline: Timeline, steps: Steps) -> None:
        self._trainer, self._data, self._timeline, self._steps = trainer, data, timeline, steps
        self._packs, self._family = MicroBatches(data.index, data.images, family), family

    def __call__(self, bars: ProgressBars) -> Seen:
        """Warm up, measure, and profile."""
        trainer, steps, device = self._trainer, self._steps, self._trainer.world.device
        began = time.perf_counter()
        found = memory.preflight(trainer, self._packs, self._family)
        meter = Throughput(trainer.schedule, trainer.index, trainer.config, trainer.world, found.flops_per_token)
        again = steps.again if device.type == "cuda" else range(0)
        stream = self._stream([*range(steps.total), *again])
        with Log(trainer.config, 0, meter, trainer.world) as log, bars("training", "steps", meter.text) as update:

            def run(numbers: range) -> list[float]:
                losses = []
                for step in numbers:
                    losses.append(self._step(step, stream, log))
                    update(step + 1, steps.total)
                return losses

            run(range(steps.warm))
            gpu.wait(device)
            warming = time.perf_counter() - began
            gpu.forget_peaks(device)
            losses = run(steps.counted)
            self._timeline.begin()
            sections, peaks = self._timeline.steps()[steps.warm :], gpu.peaks(device)
            busy = gpu.busy(device, lambda: run(again)) if again else None
        return Seen(sections, losses, peaks, busy, warming, list(memory.lines(found)))

    def _stream(self, steps: Sequence[int]) -> Iterator[Batch]:
        order = (pack for step in steps for pack in self._trainer.micro_batches(step))
        return watched(batches(self._packs, order, self._trainer.config.dataloader_num_workers), self._timeline)

    def _step(self, step: int, stream: Iterator[Batch], log: Log) -> float:
        self._timeline.begin()
        began = time.monotonic()
        outcome = self._trainer.step(step, stream)
        log.step(step, self._trainer.schedule, self._trainer.index, outcome, time.monotonic() - began)
        return outcome.loss

"""Run the steps of a measurement with the real trainer, and record their timeline."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convkit.train.bench import gpu
from convkit.train.bench.data import BenchData
from convkit.train.bench.instrumented import instrumented_batches
from convkit.train.bench.timeline import Timeline
from convkit.train.data.loader import Batch, MicroBatches, batches
from convkit.train.metrics.log import MetricsLog
from convkit.train.metrics.throughput import Throughput
from convkit.train.models.family import ModelFamily
from convkit.train.preflight import memory
from convkit.train.trainer import Trainer
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class StepCounts:
    """The numbers of warm-up, measured and profiled steps."""

    warmup: int
    """Not measured: layers are compiled and memory is allocated."""
    measured: int
    profiled: int
    """The last measured steps run again under torch.profiler, on a GPU. The profiler slows them down."""

    @property
    def total(self) -> int:
        """The number of scheduled steps."""
        return self.warmup + self.measured

    @property
    def measured_range(self) -> range:
        """The numbers of the measured steps."""
        return range(self.warmup, self.total)

    @property
    def profiled_range(self) -> range:
        """The numbers of the profiled steps."""
        return range(max(self.warmup, self.total - self.profiled), self.total)


@dataclass(frozen=True)
class StepTimings:
    """The raw data of the measured steps."""

    sections: list[dict[str, float]]
    """Milliseconds by section, for each step."""
    losses: list[float]
    memory: gpu.PeakMemory | None
    busy_seconds: float | None
    """Seconds with GPU activity in the profiled steps, or None without profiled steps."""
    warmup_seconds: float
    """Seconds before the measured steps, from the first forward pass on."""
    preflight: list[str]
    """Messages of the preflight check."""


class TimedRun:
    """Runs a trainer's steps with everything that a training run does around them, except checkpoints."""

    def __init__(
        self, trainer: Trainer, data: BenchData, family: ModelFamily, timeline: Timeline, steps: StepCounts
    ) -> None:
        self._trainer, self._data, self._timeline, self._steps = trainer, data, timeline, steps
        self._micro_batches, self._family = MicroBatches(data.index, data.images, family), family

    def __call__(self, bars: ProgressBars) -> StepTimings:
        """Warm up, run the measured steps, and repeat the last ones under the profiler."""
        trainer, steps, device = self._trainer, self._steps, self._trainer.world.device
        began = time.perf_counter()
        found = memory.preflight(trainer, self._micro_batches, self._family)
        throughput = Throughput(trainer.schedule, trainer.index, trainer.config, trainer.world, found.flops_per_token)
        profiled = steps.profiled_range if device.type == "cuda" else range(0)
        stream = self._stream([*range(steps.total), *profiled])
        with (
            MetricsLog(trainer.config, 0, throughput, trainer.world) as log,
            bars("training", "steps", throughput.text) as update,
        ):

            def run(numbers: range) -> list[float]:
                losses = []
                for step in numbers:
                    losses.append(self._step(step, stream, log))
                    update(step + 1, steps.total)
                return losses

            run(range(steps.warmup))
            gpu.synchronize(device)
            warmup_seconds = time.perf_counter() - began
            gpu.reset_peak_memory(device)
            losses = run(steps.measured_range)
            self._timeline.begin()
            sections, peak = self._timeline.steps()[steps.warmup :], gpu.peak_gpu_memory(device)
            busy = gpu.busy_seconds(device, lambda: run(profiled)) if profiled else None
        return StepTimings(sections, losses, peak, busy, warmup_seconds, list(memory.lines(found)))

    def _stream(self, steps: Sequence[int]) -> Iterator[Batch]:
        order = (micro_batch for step in steps for micro_batch in self._trainer.micro_batches(step))
        workers = self._trainer.config.dataloader_num_workers
        return instrumented_batches(batches(self._micro_batches, order, workers), self._timeline)

    def _step(self, step: int, stream: Iterator[Batch], log: MetricsLog) -> float:
        self._timeline.begin()
        began = time.monotonic()
        outcome = self._trainer.step(step, stream)
        log.step(step, self._trainer.schedule, self._trainer.index, outcome, time.monotonic() - began)
        return outcome.loss

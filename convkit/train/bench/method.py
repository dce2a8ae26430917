"""Measure one way to train a model: build it, warm up, run the measured steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from convkit.train.bench import gpu
from convkit.train.bench.data import BenchData
from convkit.train.bench.flops import ModelFlops, row_size
from convkit.train.bench.instrumented import InstrumentedSharding
from convkit.train.bench.results import Measurement, summarize
from convkit.train.bench.run import StepCounts, TimedRun
from convkit.train.bench.timeline import Timeline
from convkit.train.config import Config
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.world import World
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.sharding import Sharding, shard
from convkit.train.setup import trainable
from convkit.train.trainer import Trainer
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class TrainingMethod:
    """The configuration, model family and sharding to train with."""

    config: Config
    family: Phi3VFamily
    shard: Callable[[Any, Config, World], Sharding] = shard
    """Moves the model to its device and creates its optimizer."""

    def measure(self, data: BenchData, world: World, steps: StepCounts, peak: float, bars: ProgressBars) -> Measurement:
        """Build the model, warm up, measure, and free the model's memory.

        Args:
            peak: the throughput of matrix products on this device, in FLOP/s.

        Raises:
            ConvkitError: the model does not fit into memory, or a loss is not finite.
        """
        try:
            return self._measure(data, world, steps, peak, bars)
        finally:
            gpu.free_memory(world.device)

    def _measure(
        self, data: BenchData, world: World, steps: StepCounts, peak: float, bars: ProgressBars
    ) -> Measurement:
        began = time.perf_counter()
        schedule, timeline = self._schedule(data, steps), Timeline(world.device)
        model = trainable.load_for_training(self.family, self.config).train()
        sharding = InstrumentedSharding(self.shard(model, self.config, world), self.family, timeline)
        gpu.synchronize(world.device)
        build_seconds = time.perf_counter() - began
        trainer = Trainer(sharding, schedule, data.index, self.config, world)
        timings = TimedRun(trainer, data, self.family, timeline, steps)(bars)
        flops = self._flops_per_row(model, data, schedule, steps)
        return summarize(timings, steps, schedule, data.index, flops, build_seconds, peak)

    def _flops_per_row(
        self, model: nn.Module, data: BenchData, schedule: BatchSchedule, steps: StepCounts
    ) -> list[dict[str, int]]:
        """Return the FLOPs by part of the model, for each row of the measured steps."""
        flops, rows = ModelFlops(model), [row for step in steps.measured_range for row in schedule.batch(step)]
        return [flops.row(row_size(data.index, row, data.images, self.family.num_crops)) for row in rows]

    def _schedule(self, data: BenchData, steps: StepCounts) -> BatchSchedule:
        """Schedule as many epochs of all rows as the steps need."""
        config = self.config
        options = ScheduleOptions(
            epochs=-(-steps.total // -(-len(data.index) // config.batch_size)),
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            max_rows=config.batch_size_per_gpu,
            seed=config.seed,
        )
        return BatchSchedule(data.index.tokens, options)

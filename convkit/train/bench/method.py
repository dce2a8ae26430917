"""A way to train that is measured: ours, or the recipe's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from convkit.train.bench import gpu
from convkit.train.bench.data import Data
from convkit.train.bench.flops import Flops, shape
from convkit.train.bench.instrumented import Watched
from convkit.train.bench.results import Figures, figures
from convkit.train.bench.run import Run, Steps
from convkit.train.bench.timeline import Timeline
from convkit.train.config import Config
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.world import World
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.sharding import Sharding
from convkit.train.setup import trainable
from convkit.train.trainer import Trainer
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class Contender:
    """What it takes to train a model one way."""

    config: Config
    family: Phi3VFamily
    shard: Callable[[Any, Config, World], Sharding]
    """Takes the model to where it is trained."""

    def measure(self, data: Data, world: World, steps: Steps, peak: float, bars: ProgressBars) -> Figures:
        """Build the model, warm up, measure; afterwards nothing of it is left on the device.

        Args:
            peak: what matrix products come to, in FLOP/s.

        Raises:
            ConvkitError: it does not fit into memory, or a loss is not a number.
        """
        try:
            return self._measure(data, world, steps, peak, bars)
        finally:
            gpu.release(world.device)

    def _measure(self, data: Data, world: World, steps: Steps, peak: float, bars: ProgressBars) -> Figures:
        began = time.perf_counter()
        plan, timeline = self._plan(data, steps), Timeline(world.device)
        model = trainable.load_for_training(self.family, self.config).train()
        sharding = Watched(self.shard(model, self.config, world), self.family, timeline)
        gpu.wait(world.device)
        building = time.perf_counter() - began
        trainer = Trainer(sharding, plan, data.index, self.config, world)
        seen = Run(trainer, data, self.family, timeline, steps)(bars)
        return figures(seen, steps, plan, data.index, self._costs(model, data, plan, steps), building, peak)

    def _costs(self, model: nn.Module, data: Data, plan: BatchSchedule, steps: Steps) -> list[dict[str, int]]:
        """Of each row of the measured steps."""
        work, rows = Flops(model), [row for step in steps.counted for row in plan.batch(step)]
        return [work.row(shape(data.index, row, data.images, self.family.num_crops)) for row in rows]

    def _plan(self, data: Data, steps: Steps) -> BatchSchedule:
        """All rows, as often as it takes for so many steps."""
        config = self.config
        options = ScheduleOptions(
            epochs=-(-steps.total // -(-len(data.index) // config.batch_size)),
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            max_rows=config.batch_size_per_gpu,
            seed=config.seed,
        )
        return BatchSchedule(data.index.tokens, options)

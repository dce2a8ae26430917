"""Evaluations within a run: before the first step, every so often, and after the last."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convkit.metrics.results import MetricScore, Scores
from convkit.train.config import Config
from convkit.train.distributed.world import World
from convkit.train.evaluate.answering import Answering
from convkit.train.evaluate.options import AnsweringOptions
from convkit.train.evaluate.run import PREDICTIONS, SCORES, scores
from convkit.train.models.family import ModelFamily
from convkit.train.setup.precision import compute_dtype
from convkit.train.trainer import Stopped
from convkit.utils.progress import ProgressBars

EVALUATIONS = "evaluations"
"""Of a run: a folder for each step that was evaluated after, with predictions.jsonl and scores.json."""


class Evaluations:
    """Those that a run's configuration asks for.

    Args:
        steps: how many the run has.

    Raises:
        ConvkitError: the data set has no such split.
    """

    def __init__(self, config: Config, family: ModelFamily, world: World, steps: int, bars: ProgressBars) -> None:
        self._config, self._world, self._steps, self._bars = config, world, steps, bars
        self._answering: Answering | None = None
        if config.eval_split is not None:
            self._answering = Answering(
                config.data_dir,
                family,
                AnsweringOptions(
                    split=config.eval_split,
                    limit=config.eval_limit,
                    batch_size=config.eval_batch_size,
                    max_new_tokens=config.eval_max_new_tokens,
                    max_tokens=config.max_tokens,
                    dataloader_num_workers=config.dataloader_num_workers,
                ),
            )

    def forget(self, step: int) -> None:
        """Remove those of later steps, which come again: a run goes on after `step`, or begins if that is 0."""
        for folder in (self._config.output_dir / EVALUATIONS).glob("step-*"):
            if self._world.first and (not step or folder.name > _name(step)):
                shutil.rmtree(folder)

    def __call__(self, step: int, model: Any, stop_requested: Callable[[], bool] = bool) -> Scores | None:
        """Evaluate after a step, 0 being none, if it is time and was not done yet; all processes call it.

        Args:
            step: how many were done.
            model: which answers.
            stop_requested: whether this process should end before all is answered.

        Returns:
            The scores, on the first process; None where nothing was to be done.

        Raises:
            Stopped: a process was asked to; the same evaluation is begun anew another time.
        """
        if self._answering is None or not self._due(step):
            return None
        folder = self._config.output_dir / EVALUATIONS / _name(step)
        if self._world.from_first(lambda: _is_done(folder)):
            return None
        computed = compute_dtype(self._config)
        try:
            # Without the cache no copies of all weights in half precision are kept.
            with torch.autocast(
                self._world.device.type, computed, enabled=computed is not torch.float32, cache_enabled=False
            ):
                whole = self._answering(model, folder / PREDICTIONS, 0, self._world, self._bars, stop_requested)
        finally:
            model.train()
        if not whole:
            raise Stopped(
                f"stopped in the evaluation after step {step:,} of {self._steps:,}. Go on with --resume auto."
            )
        return self._world.from_first(lambda: scores(folder / PREDICTIONS))

    def _due(self, step: int) -> bool:
        every = self._config.eval_steps
        return step in (0, self._steps) or bool(every and step % every == 0)


def _is_done(folder: Path) -> bool:
    """Whether it has its scores, which are written last; if not, it is begun anew."""
    if (folder / SCORES).exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False


def _name(step: int) -> str:
    return f"step-{step:08}"


def curves(found: Scores) -> dict[str, float]:
    """Values by data set and metric, such as `eval/docvqa/anls`."""
    return {
        f"eval/{source.source}/{metric.name}": metric.value
        for source in found.sources
        for metric in source.metrics
        if metric.value is not None
    }


def summary(found: Scores) -> list[str]:
    """A line for each data set, of all its metrics."""
    return [
        f"{source.source}: {', '.join(_told(metric) for metric in source.metrics)} of {source.turns:,} turns"
        for source in found.sources
    ]


def _told(metric: MetricScore) -> str:
    if metric.value is None:
        return f"no {metric.name}"
    between = "" if metric.low is None else f" ({metric.low:.4f}-{metric.high:.4f})"
    return f"{metric.name} {metric.value:.4f}{between}"

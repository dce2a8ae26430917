"""Evaluation during training: before the first step, every `--eval_steps` steps, and after the last step."""

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
"""Folder in the run directory, with predictions.jsonl and scores.json for each evaluated step."""


class Evaluations:
    """Runs the evaluations that a configuration asks for.

    Args:
        steps: number of steps of the run.

    Raises:
        ConvkitError: the dataset has no such split.
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

    def remove_after(self, step: int) -> None:
        """Remove evaluations of later steps, which will be repeated; step 0 removes all."""
        for folder in (self._config.output_dir / EVALUATIONS).glob("step-*"):
            if self._world.first and (not step or folder.name > _name(step)):
                shutil.rmtree(folder)

    def __call__(self, step: int, model: Any, stop_requested: Callable[[], bool] = bool) -> Scores | None:
        """Evaluate after `step` steps if an evaluation is due and not done yet; all ranks call this.

        Args:
            stop_requested: returns whether this rank should stop before all questions are answered.

        Returns:
            The scores, on all ranks; None if no evaluation was due.

        Raises:
            Stopped: a rank was asked to stop; the evaluation is repeated after resuming.
        """
        if self._answering is None or not self._due(step):
            return None
        folder = self._config.output_dir / EVALUATIONS / _name(step)
        if self._world.from_first(lambda: _is_done(folder)):
            return None
        computed = compute_dtype(self._config)
        try:
            # Autocast's cache would keep a half-precision copy of every weight.
            with torch.autocast(
                self._world.device.type, computed, enabled=computed is not torch.float32, cache_enabled=False
            ):
                complete = self._answering(model, folder / PREDICTIONS, 0, self._world, self._bars, stop_requested)
        finally:
            model.train()
        if not complete:
            raise Stopped(
                f"stopped in the evaluation after step {step:,} of {self._steps:,}. Resume with --resume auto."
            )
        return self._world.from_first(lambda: scores(folder / PREDICTIONS))

    def _due(self, step: int) -> bool:
        every = self._config.eval_steps
        return step in (0, self._steps) or bool(every and step % every == 0)


def _is_done(folder: Path) -> bool:
    """Return whether an evaluation has scores, which are written last; otherwise empty its folder."""
    if (folder / SCORES).exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False


def _name(step: int) -> str:
    return f"step-{step:08}"


def curves(found: Scores) -> dict[str, float]:
    """Return the metric values by source, such as `eval/docvqa/anls`, for experiment trackers."""
    return {
        f"eval/{source.source}/{metric.name}": metric.value
        for source in found.sources
        for metric in source.metrics
        if metric.value is not None
    }


def summary(found: Scores) -> list[str]:
    """Return one line per source with all its metrics."""
    return [
        f"{source.source}: {', '.join(_described(metric) for metric in source.metrics)} of {source.turns:,} turns"
        for source in found.sources
    ]


def _described(metric: MetricScore) -> str:
    if metric.value is None:
        return f"no {metric.name}"
    between = "" if metric.low is None else f" ({metric.low:.4f}-{metric.high:.4f})"
    return f"{metric.name} {metric.value:.4f}{between}"

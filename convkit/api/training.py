"""Train, evaluate and encode. Needs the extra `train`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.api.options import Pathlike, progress_bars, validated
from convkit.dataset import Dataset
from convkit.utils.silence import silence_libraries

if TYPE_CHECKING:
    from convkit.metrics.results import Scores
    from convkit.schema import Row
    from convkit.train.models.collate import Sample


@dataclass(frozen=True)
class TrainResult:
    """The outputs of a training run."""

    output_dir: Path
    model: Path | None
    """The trained model's directory; None after LoRA fine-tuning."""
    adapter: Path | None
    """The LoRA adapter's directory; None after fine-tuning without LoRA."""
    log: tuple[str, ...]
    """The lines that `convkit train` prints."""


def train(
    data_dir: "Dataset | Pathlike",
    model: Pathlike,
    output_dir: Pathlike,
    *,
    recipe: str | None = None,
    progress: bool = False,
    **options: Any,
) -> TrainResult:
    """Fine-tune a model on a validated dataset, in this process.

    Under torchrun or accelerate launch, every process calls it. Start several processes with `convkit train --nproc`
    otherwise.

    Args:
        data_dir: a dataset directory with a receipt for this model.
        model: a checkpoint directory.
        recipe: published hyper-parameters by name.
        options: those of `convkit train`, such as `use_lora=True`.

    Raises:
        ConvkitError: an option is invalid, the receipt is missing, or training fails.
    """
    silence_libraries()
    from convkit.train import models, run
    from convkit.train.config import resolve
    from convkit.train.distributed.world import world

    data = data_dir.directory if isinstance(data_dir, Dataset) else data_dir
    named = {"data_dir": os.fspath(data), "model": os.fspath(model), "output_dir": os.fspath(output_dir)}
    config = resolve(named | options, None, recipe)
    family = models.model_family(config.model, config.num_crops)
    log: list[str] = []
    with world() as joined:
        run.train(config, family, joined, progress_bars(progress), log.append)
        joined.wait()  # until rank 0 has written final/
    final = config.output_dir / "final"
    found = {name: path if (path := final / name).is_dir() else None for name in ("model", "adapter")}
    return TrainResult(config.output_dir, **found, log=tuple(log))


def evaluate(
    data_dir: "Dataset | Pathlike",
    model: Pathlike,
    output_dir: Pathlike,
    *,
    metrics: Sequence[str] = (),
    progress: bool = False,
    **options: Any,
) -> "Scores":
    """Answer every turn of a split with a model, and score the answers. Resumes if interrupted.

    Args:
        output_dir: the directory for predictions.jsonl and scores.json.
        metrics: metrics for every dataset; those of each dataset if empty.
        options: those of `convkit evaluate`, such as `split="test"` or `adapter="run/final/adapter"`.

    Raises:
        ConvkitError: an option is invalid, the receipt is missing, or the output directory holds another evaluation.
    """
    silence_libraries()
    from convkit.metrics.options import ScoreOptions, check_metric_names
    from convkit.train.distributed.world import world
    from convkit.train.evaluate import run
    from convkit.train.evaluate.options import EvaluateOptions

    scored_by = ScoreOptions(tuple(metrics))
    check_metric_names(scored_by)
    data = data_dir.directory if isinstance(data_dir, Dataset) else data_dir
    paths = {"data_dir": Path(data), "model": Path(model), "output_dir": Path(output_dir)}
    chosen = validated(EvaluateOptions, paths | options, "convkit.evaluate")
    with world() as joined:
        predictions = run.evaluate(chosen, joined, progress_bars(progress))
        return joined.from_first(lambda: run.scores(predictions, scored_by))


def encode(row: "Row", model: Pathlike, images: Pathlike) -> "Sample":
    """Return the tokens, labels and image tensors that a model is trained on for a row.

    Args:
        model: a checkpoint directory.
        images: the folder that the row's image paths are relative to.

    Returns:
        `input_ids` and `labels` (T) int64, with -100 where no loss is computed, and the image tensors by name.

    Raises:
        ConvkitError: the checkpoint cannot be read, or the row does not fit the model.
    """
    silence_libraries()
    from convkit.train.models import model_family

    return model_family(Path(model)).encode(row, Path(images))

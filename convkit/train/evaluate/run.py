"""Run an evaluation: answer a split, write predictions and scores, and resume after an interruption."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from convkit import receipt, run_info
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.metrics.options import ScoreOptions
from convkit.metrics.predictions import read_predictions
from convkit.metrics.results import Scores
from convkit.metrics.score import score
from convkit.run_info import RunInfo
from convkit.train import models
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.evaluate.answering import Answering, truncate_to_batches
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import fingerprint
from convkit.utils.files import write_atomic
from convkit.utils.progress import ProgressBars, no_progress_bar

PREDICTIONS, SCORES, EVALUATION = "predictions.jsonl", "scores.json", "evaluation.json"
_UNFINISHED = "predictions.part.jsonl"
_TRAINING_RUN_OR_MODEL = "config.json"


def evaluate(options: EvaluateOptions, world: World, bars: ProgressBars = no_progress_bar) -> Path:
    """Answer every turn of a split, and return the predictions file, in the order of rows and turns.

    Resumes an interrupted evaluation in `options.output_dir`. A finished evaluation is not repeated.

    Raises:
        ConvkitError: the dataset has no current receipt for the model, a row does not fit the model, or the directory
            holds another evaluation.
    """
    family = models.model_family(options.model, options.num_crops)
    done = world.from_first(lambda: _prepare(options, family, world))
    finished = options.output_dir / PREDICTIONS
    if done is None:
        return finished
    answering = Answering(options.data_dir, family, options)
    unfinished = options.output_dir / _UNFINISHED
    answering(_load(options, family).to(world.device), unfinished, done, world, bars)
    if world.first:
        os.replace(unfinished, finished)
    return finished


def scores(predictions: Path, options: ScoreOptions = ScoreOptions()) -> Scores:
    """Score a predictions file, and write scores.json beside it."""
    found = score(read_predictions(predictions), options)
    write_atomic(predictions.parent / SCORES, found.model_dump_json(indent=2).encode() + b"\n", predictions.parent)
    return found


def _prepare(options: EvaluateOptions, family: ModelFamily, world: World) -> int | None:
    """Return the number of questions that are already answered, or None if all of them are."""
    found = receipt.require(options.data_dir, family.profile)
    dataset = Dataset.open(options.data_dir)
    rows = dataset.path(options.split).name
    identity: dict[str, Any] = {
        "rows": found.rows[rows].sha256,
        "images": found.media.digest,
        "model": fingerprint(options.model),
        "adapter": fingerprint(options.adapter) if options.adapter else None,
        **options.resume_fingerprint(),
    }
    folder = options.output_dir
    if (folder / _TRAINING_RUN_OR_MODEL).exists():
        raise ConvkitError(
            f"{folder} contains {_TRAINING_RUN_OR_MODEL} of a training run or a model. Choose another --output_dir."
        )
    if not any((folder / name).exists() and (folder / name).stat().st_size for name in (PREDICTIONS, _UNFINISHED)):
        # Until the first answer is written, an evaluation started by mistake can be replaced by another one.
        folder.mkdir(parents=True, exist_ok=True)
        run_info.write(
            folder,
            RunInfo(
                versions=versions(),
                hardware=hardware(world),
                data_dir=options.data_dir.absolute(),
                split=options.split,
                manifest=dataset.manifest,
                receipt=found,
            ),
        )
        write_atomic(folder / EVALUATION, _json({**options.paths(), **identity}), folder)
    _require_same(folder, identity)
    if (folder / PREDICTIONS).exists():
        return None
    return truncate_to_batches(folder / _UNFINISHED, options.batch_size)


def _require_same(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse to resume an evaluation of other inputs or options."""
    before = _read(folder / EVALUATION)
    if changed := [name for name in identity if before.get(name) != identity[name]]:
        differences = "; ".join(f"{name} was {before.get(name)!r}, now {identity[name]!r}" for name in changed)
        raise ConvkitError(
            f"{folder} contains another evaluation: {differences}. Use the original options, or choose another "
            "--output_dir."
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError):
        pass
    raise ConvkitError(
        f"{file} cannot be read, so the predictions beside it cannot be identified. Choose another --output_dir."
    )


def _load(options: EvaluateOptions, family: ModelFamily) -> Any:
    model = family.load(torch.bfloat16 if options.bf16 else torch.float32, "sdpa")
    if options.adapter is None:
        return model
    from peft import PeftModel

    if not (options.adapter / "adapter_model.safetensors").is_file():
        raise ConvkitError(
            f"{options.adapter} contains no adapter_model.safetensors. Give an adapter directory, such as "
            "final/adapter of a run with --use_lora."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads attributes that transformers renamed
            return PeftModel.from_pretrained(model, options.adapter)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConvkitError(f"{options.adapter} does not fit {options.model}: {' '.join(str(error).split())}") from None


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"

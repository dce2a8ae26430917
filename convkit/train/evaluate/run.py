"""An evaluation from its options to a predictions file and its scores; killed at any instant, it goes on."""

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convkit import layout, receipt, run_info
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.metrics import score as metrics
from convkit.metrics.predictions import read_predictions
from convkit.metrics.results import Scores
from convkit.run_info import Record
from convkit.train import models
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.evaluate.answering import Answering, questions_of, whole_batches
from convkit.train.evaluate.questions import History
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import fingerprint
from convkit.utils.files import write_atomic
from convkit.utils.progress import Bars, silent

PREDICTIONS, SCORES, EVALUATION = "predictions.jsonl", "scores.json", "evaluation.json"
_UNFINISHED = "predictions.part.jsonl"
_OTHERS = "config.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is evaluated, and how."""

    data_dir: Path
    model: Path
    output_dir: Path
    split: str = "val"
    adapter: Path | None = None
    """Adapters of low rank, in PEFT's layout."""
    history: History = "gold"
    limit: int | None = None
    """The first rows only."""
    batch_size: int = 16
    max_new_tokens: int = 64
    max_tokens: int = 8192
    """Of a prompt."""
    bf16: bool = False
    num_crops: int | None = None
    dataloader_num_workers: int = 2

    def decisive(self) -> dict[str, Any]:
        """What predictions depend on; data and weights are compared by their digests."""
        names = ("split", "history", "limit", "batch_size", "max_new_tokens", "bf16", "num_crops")
        return {f"--{name}": getattr(self, name) for name in names}

    def places(self) -> dict[str, str]:
        """For people; what was moved is the same."""
        names = ("data_dir", "model", "adapter")
        return {f"--{name}": str(path) for name in names if (path := getattr(self, name))}


def evaluate(options: Options, world: World, bars: Bars = silent) -> Path:
    """Answer every turn of a split; returns the predictions file, in the order of rows and turns.

    An evaluation that was begun in `options.output_dir` goes on; one that was finished is not repeated.

    Raises:
        ConvkitError: the data set has no fresh receipt for the model, a row does not fit, or the folder holds another
            evaluation.
    """
    family = models.model_family(options.model, options.num_crops)
    done = world.from_first(lambda: _begin(options, family, world))
    finished = options.output_dir / PREDICTIONS
    if done is None:
        return finished
    answering = Answering(
        questions_of(options.data_dir, options.split, options.limit),
        options.data_dir / layout.IMAGES,
        family,
        history=options.history,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        max_tokens=options.max_tokens,
        workers=options.dataloader_num_workers,
    )
    unfinished = options.output_dir / _UNFINISHED
    answering(_load(options, family).to(world.device), unfinished, done, world, bars)
    if world.first:
        os.replace(unfinished, finished)
    return finished


def scores(predictions: Path, options: metrics.ScoreOptions = metrics.ScoreOptions()) -> Scores:
    """Score a predictions file, and write scores.json beside it."""
    found = metrics.score(read_predictions(predictions), options)
    write_atomic(predictions.parent / SCORES, found.model_dump_json(indent=2).encode() + b"\n", predictions.parent)
    return found


def _begin(options: Options, family: ModelFamily, world: World) -> int | None:
    """Find out how many questions were answered before; None: all of them."""
    seen = receipt.require(options.data_dir, family.profile)
    dataset = Dataset.open(options.data_dir)
    rows = dataset.path(options.split).name
    of: dict[str, Any] = {
        "rows": seen.rows[rows].sha256,
        "images": seen.media.digest,
        "model": fingerprint(options.model),
        "adapter": fingerprint(options.adapter) if options.adapter else None,
        **options.decisive(),
    }
    folder = options.output_dir
    if (folder / _OTHERS).exists():
        raise ConvkitError(f"{folder} holds {_OTHERS}, of a training run or a model. Choose another --output_dir.")
    if not any((folder / name).exists() and (folder / name).stat().st_size for name in (PREDICTIONS, _UNFINISHED)):
        # Before the first answer nothing is fixed yet: what was begun by mistake does not stand in the way.
        folder.mkdir(parents=True, exist_ok=True)
        run_info.write(
            folder,
            Record(
                versions=versions(),
                hardware=hardware(world),
                data_dir=options.data_dir.absolute(),
                split=options.split,
                manifest=dataset.manifest,
                receipt=seen,
            ),
        )
        write_atomic(folder / EVALUATION, _json({**options.places(), **of}), folder)
    found = _read(folder / EVALUATION)
    if changed := [name for name in of if found.get(name) != of[name]]:
        told = "; ".join(f"{name} {found.get(name)!r} there, {of[name]!r} here" for name in changed)
        raise ConvkitError(
            f"{folder} holds another evaluation: {told}. Give what it was begun with, or choose another --output_dir."
        )
    if (folder / PREDICTIONS).exists():
        return None
    return whole_batches(folder / _UNFINISHED, options.batch_size)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError):
        pass
    raise ConvkitError(
        f"{file} cannot be read, so it is not known what the predictions beside it are of. Choose another --output_dir."
    )


def _load(options: Options, family: ModelFamily) -> Any:
    model = family.load(torch.bfloat16 if options.bf16 else torch.float32, "sdpa")
    if options.adapter is None:
        return model
    from peft import PeftModel

    if not (options.adapter / "adapter_model.safetensors").is_file():
        raise ConvkitError(
            f"{options.adapter} holds no adapter_model.safetensors. Name the folder of an adapter, such as "
            "final/adapter of a run with --use_lora."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks for attributes that transformers renamed
            return PeftModel.from_pretrained(model, options.adapter)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ConvkitError(f"{options.adapter} does not fit {options.model}: {' '.join(str(error).split())}") from None


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"

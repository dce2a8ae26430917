"""An evaluation from its options to a predictions file and its scores; killed at any instant, it goes on."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from convkit import layout, receipt
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.files import write_atomic
from convkit.metrics import score as metrics
from convkit.metrics.predictions import Prediction, read_predictions
from convkit.metrics.scores import Scores
from convkit.progress import Bars, silent
from convkit.train import models
from convkit.train.data import batches
from convkit.train.distributed import World
from convkit.train.fingerprint import fingerprint
from convkit.train.generate import Generator, Prompts, first_token
from convkit.train.models.base import Adapter
from convkit.train.questions import History, Question, questions, two_answers

PREDICTIONS, SCORES, EVALUATION = "predictions.jsonl", "scores.json", "evaluation.json"
_UNFINISHED = "predictions.part.jsonl"


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
        names = ("split", "history", "limit", "batch_size", "max_new_tokens", "max_tokens", "bf16", "num_crops")
        return {f"--{name}": getattr(self, name) for name in names}


def evaluate(options: Options, world: World, bars: Bars = silent) -> Path:
    """Answer every turn of a split; returns the predictions file, in the order of rows and turns.

    An evaluation that was begun in `options.output_dir` goes on; one that was finished is not repeated.

    Raises:
        ConvkitError: the data set has no fresh receipt for the model, a row does not fit, or the folder holds another
            evaluation.
    """
    adapter = models.adapter(options.model, options.num_crops)
    done = world.from_first(lambda: _begin(options, adapter))
    finished = options.output_dir / PREDICTIONS
    if done is None:
        return finished
    asked = _questions(options)
    order = [
        tuple(range(start, min(start + options.batch_size, len(asked))))
        for start in range(0, len(asked), options.batch_size)
    ]
    _answer(options, adapter, asked, order, done // options.batch_size, world, bars if world.first else silent)
    if world.first:
        os.replace(options.output_dir / _UNFINISHED, finished)
    return finished


def scores(predictions: Path, options: metrics.Options = metrics.Options()) -> Scores:
    """Score a predictions file, and write scores.json beside it."""
    found = metrics.score(read_predictions(predictions), options)
    write_atomic(predictions.parent / SCORES, found.model_dump_json(indent=2).encode() + b"\n", predictions.parent)
    return found


def _begin(options: Options, adapter: Adapter) -> int | None:
    """Find out how many questions were answered before; None: all of them."""
    seen = receipt.require(options.data_dir, adapter.profile)
    rows = Dataset.open(options.data_dir).path(options.split).name
    of: dict[str, Any] = {
        "rows": seen.rows[rows].sha256,
        "images": seen.media.digest,
        "model": fingerprint(options.model),
        "adapter": fingerprint(options.adapter) if options.adapter else None,
        **options.decisive(),
    }
    folder = options.output_dir
    file = folder / EVALUATION
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if others := [name for name in (PREDICTIONS, _UNFINISHED) if (folder / name).exists()]:
            raise ConvkitError(f"{folder / others[0]} is not of an evaluation. Choose another --output_dir.")
        write_atomic(file, _json(of), folder)
    found = _read(file)
    if changed := [name for name in of if found.get(name) != of[name]]:
        told = "; ".join(f"{name} {found.get(name)!r} there, {of[name]!r} here" for name in changed)
        raise ConvkitError(
            f"{folder} holds another evaluation: {told}. Give what it was begun with, or choose another --output_dir."
        )
    if (folder / PREDICTIONS).exists():
        return None
    return _whole_batches(folder / _UNFINISHED, options.batch_size)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    except (OSError, ValueError):
        pass
    raise ConvkitError(f"{file} cannot be read. Choose another --output_dir.")


def _whole_batches(file: Path, size: int) -> int:
    """Cut a file off after its last whole batch; returns the lines that stay."""
    if not file.exists():
        return 0
    with file.open("r+b") as lines:
        kept = count = end = 0
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if number % size == 0:
                kept, count = end, number
        lines.truncate(kept)
    return count


def _questions(options: Options) -> list[Question]:
    rows = (row for _, row in Dataset.open(options.data_dir).rows(options.split))
    found = questions(islice(rows, options.limit))
    if not found:
        raise ConvkitError(f"The split {options.split!r} of {options.data_dir} has no rows.")
    return found


def _answer(
    options: Options,
    adapter: Adapter,
    asked: Sequence[Question],
    order: Sequence[tuple[int, ...]],
    begun: int,
    world: World,
    bars: Bars,
) -> None:
    """Batches in turn, one for each process at a time; the first process writes them in order."""
    images = options.data_dir / layout.IMAGES
    generator = Generator(_load(options, adapter).to(world.device), adapter, options.max_new_tokens)
    pairs = {
        source: [first_token(adapter, answer) for answer in pair]
        for source, pair in two_answers(asked, metrics.POSITIVE).items()
    }
    prompts = Prompts(asked, images, adapter, options.history, options.max_tokens)
    rounds = range(begun, len(order), world.size)
    mine = (order[first + world.rank] for first in rounds if first + world.rank < len(order))
    stream = batches(prompts, mine, options.dataloader_num_workers)
    with bars("answering", "questions") as update, _appending(options.output_dir, world) as file:
        for first in rounds:
            lines = b""
            if first + world.rank < len(order):
                texts, probabilities = generator(next(stream))
                lines = b"".join(
                    _line(asked[number], text, probability, pairs)
                    for number, text, probability in zip(order[first + world.rank], texts, probabilities, strict=True)
                )
            for part in _gathered(lines, world):
                file.write(part)
                file.flush()
            update(min((first + world.size) * options.batch_size, len(asked)), len(asked))


def _appending(folder: Path, world: World) -> Any:
    return (folder / _UNFINISHED).open("ab") if world.first else open(os.devnull, "wb")


def _gathered(lines: bytes, world: World) -> Iterator[bytes]:
    """Those of all processes in order, on the first."""
    if world.size == 1:
        yield lines
        return
    found: list[Any] | None = [None] * world.size if world.first else None
    dist.gather_object(lines, found)
    yield from found or ()


def _line(question: Question, text: str, probability: torch.Tensor, pairs: dict[str, list[int]]) -> bytes:
    score = None
    if pair := pairs.get(question.row.source):
        yes, no = pair
        score = float(probability[yes] - probability[no]) if yes != no else None
    return Prediction.of(question.row, question.turn, text, score).to_line() + b"\n"


def _load(options: Options, adapter: Adapter) -> Any:
    model = adapter.load(torch.bfloat16 if options.bf16 else torch.float32, "sdpa")
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

"""Answer every question of a split in batches, on one or more ranks, and write the answers to one file in order."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError

from convkit import layout
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.metrics.options import DEFAULT_POSITIVE
from convkit.metrics.predictions import Prediction
from convkit.train.data.loader import batches, worker_errors
from convkit.train.distributed.world import World
from convkit.train.evaluate.generate import Generator, Prompts, first_token_id
from convkit.train.evaluate.options import AnsweringOptions
from convkit.train.evaluate.questions import Question, binary_answers, list_questions
from convkit.train.models.family import ModelFamily
from convkit.utils.json_file import first_problem
from convkit.utils.progress import ProgressBars, no_progress_bar


class Answering:
    """Answers the questions of a split with any model of the family.

    Raises:
        ConvkitError: the dataset cannot be read, or the split has no rows.
    """

    def __init__(self, data_dir: Path, family: ModelFamily, options: AnsweringOptions) -> None:
        self._questions = _read_questions(data_dir, options.split, options.limit)
        self._family, self._options = family, options
        images = data_dir / layout.IMAGES
        self._prompts = Prompts(self._questions, images, family, options.context, options.max_tokens)
        self._pairs = binary_answers(self._questions, DEFAULT_POSITIVE)
        self._first_tokens = {
            source: [first_token_id(family, answer) for answer in pair] for source, pair in self._pairs.items()
        }

    @worker_errors()
    def __call__(
        self,
        model: Any,
        file: Path,
        done: int,
        world: World,
        bars: ProgressBars = no_progress_bar,
        stop_requested: Callable[[], bool] = bool,
    ) -> bool:
        """Answer the remaining questions. All ranks call this; rank 0 writes the file.

        Args:
            model: on this rank's device.
            file: receives one line per answer.
            done: how many answers the file has already; always whole batches.
            stop_requested: returns True if this rank should end after the current batch.

        Returns:
            True if every question is answered, False if a rank was asked to stop.

        Raises:
            ConvkitError: a row does not fit the model, or its images cannot be read.
        """
        size, total = self._options.batch_size, len(self._questions)
        order = [tuple(range(start, min(start + size, total))) for start in range(0, total, size)]
        rounds = range(done // size, len(order), world.size)
        mine = (order[first + world.rank] for first in rounds if first + world.rank < len(order))
        stream = batches(self._prompts, mine, self._options.dataloader_num_workers)
        generator = Generator(model, self._family, self._options.max_new_tokens)
        progress = bars if world.first else no_progress_bar
        with progress("answering", "questions") as update, _open_for_append(file, world) as lines:
            for first in rounds:
                own = order[first + world.rank] if first + world.rank < len(order) else ()
                answers = self._lines(own, next(stream), generator) if own else b""
                for part in _gather(answers, world):
                    lines.write(part)
                    lines.flush()
                update(min((first + world.size) * size, total), total)
                if world.any(stop_requested()):
                    return False
        return True

    def _lines(self, numbers: Sequence[int], batch: dict[str, Any], generator: Generator) -> bytes:
        texts, log_probabilities = generator(batch)
        lines = bytearray()
        for number, text, first_token in zip(numbers, texts, log_probabilities, strict=True):
            question, score = self._questions[number], self._score(number, first_token, generator)
            try:
                lines += Prediction.from_row(question.row, question.turn, text, score).to_line() + b"\n"
            except ValidationError as error:
                raise ConvkitError(
                    f"Turn {question.turn} of row {question.row.id!r} cannot be scored: {first_problem(error)}. Remove "
                    "the row if its own answers are that long, or else lower --max_new_tokens."
                ) from None
        return bytes(lines)

    def _score(self, number: int, log_probabilities: torch.Tensor, generator: Generator) -> float | None:
        """Return the log-odds of the positive over the negative answer, for sources with two answers.

        Args:
            log_probabilities: of the first generated token (vocabulary).
        """
        source = self._questions[number].row.source
        if source not in self._pairs:
            return None
        yes, no = self._first_tokens[source]
        if yes != no:
            return float(log_probabilities[yes] - log_probabilities[no])
        # Both answers begin with the same token: compare them whole. Labels of earlier turns cancel out.
        positive, negative = generator.log_likelihoods(self._prompts.with_answers(number, self._pairs[source])).tolist()
        return float(positive - negative)


def _read_questions(data_dir: Path, split: str, limit: int | None) -> list[Question]:
    rows = (row for _, row in Dataset.open(data_dir).rows(split))
    found = list_questions(islice(rows, limit))
    if not found:
        raise ConvkitError(f"The split {split!r} of {data_dir} has no rows.")
    return found


def truncate_to_batches(file: Path, size: int) -> int:
    """Truncate a file after its last whole batch, and return the number of lines that are left."""
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


def _open_for_append(file: Path, world: World) -> Any:
    return file.open("ab") if world.first else open(os.devnull, "wb")


def _gather(lines: bytes, world: World) -> Iterator[bytes]:
    """Yield the lines of every rank in rank order, on rank 0 only."""
    if world.size == 1:
        yield lines
        return
    parts: list[Any] | None = [None] * world.size if world.first else None
    dist.gather_object(lines, parts)
    yield from parts or ()

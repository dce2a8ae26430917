"""Every question of a split, answered in batches that the processes share out, into one file in their order."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError

from convkit.dataset import Dataset, first_problem
from convkit.errors import ConvkitError
from convkit.metrics.predictions import Prediction
from convkit.metrics.score import DEFAULT_POSITIVE
from convkit.train.data.loader import batches, reading
from convkit.train.distributed.world import World
from convkit.train.evaluate.generate import Generator, Prompts, first_token
from convkit.train.evaluate.questions import History, Question, questions, two_answers
from convkit.train.models.family import ModelFamily
from convkit.utils.progress import Bars, silent


class Answering:
    """What is asked, and how; answers for any model of the adapter's family.

    Args:
        batch_size: questions that are answered at once.
        max_new_tokens: longer answers are cut off.
        max_tokens: of a prompt; longer ones are refused.
        workers: processes that read images; 0: none.
    """

    def __init__(
        self,
        asked: Sequence[Question],
        images: Path,
        family: ModelFamily,
        *,
        batch_size: int,
        max_new_tokens: int,
        max_tokens: int,
        workers: int,
        history: History = "gold",
    ) -> None:
        self._asked, self._family = asked, family
        self._size, self._max_new_tokens, self._workers = batch_size, max_new_tokens, workers
        self._prompts = Prompts(asked, images, family, history, max_tokens)
        self._pairs = two_answers(asked, DEFAULT_POSITIVE)
        self._first = {source: [first_token(family, answer) for answer in pair] for source, pair in self._pairs.items()}

    @reading()
    def __call__(
        self,
        model: Any,
        file: Path,
        done: int,
        world: World,
        bars: Bars = silent,
        asked_to_stop: Callable[[], bool] = bool,
    ) -> bool:
        """Answer all questions; all processes call it, the first one writes.

        Args:
            model: on this process's device.
            file: gets a line for each answer.
            done: how many answers it has, of whole batches.
            asked_to_stop: whether this process should end after a batch.

        Returns:
            Whether all are answered.

        Raises:
            ConvkitError: a row does not fit the model, or its images cannot be read.
        """
        starts = range(0, len(self._asked), self._size)
        order = [tuple(range(start, min(start + self._size, len(self._asked)))) for start in starts]
        rounds = range(done // self._size, len(order), world.size)
        mine = (order[first + world.rank] for first in rounds if first + world.rank < len(order))
        stream = batches(self._prompts, mine, self._workers)
        generator = Generator(model, self._family, self._max_new_tokens)
        shown = bars if world.first else silent
        with shown("answering", "questions") as update, _appending(file, world) as lines:
            for first in rounds:
                own = order[first + world.rank] if first + world.rank < len(order) else ()
                answers = self._lines(own, next(stream), generator) if own else b""
                for part in _gathered(answers, world):
                    lines.write(part)
                    lines.flush()
                update(min((first + world.size) * self._size, len(self._asked)), len(self._asked))
                if world.any(asked_to_stop()):
                    return False
        return True

    def _lines(self, numbers: Sequence[int], batch: dict[str, Any], generator: Generator) -> bytes:
        texts, probabilities = generator(batch)
        lines = bytearray()
        for number, text, probability in zip(numbers, texts, probabilities, strict=True):
            question, score = self._asked[number], self._score(number, probability, generator)
            try:
                lines += Prediction.from_row(question.row, question.turn, text, score).to_line() + b"\n"
            except ValidationError as error:
                raise ConvkitError(
                    f"Turn {question.turn} of row {question.row.id!r} cannot be scored: {first_problem(error)}. Leave "
                    "the row out if its own answers are that long, or else lower --max_new_tokens."
                ) from None
        return bytes(lines)

    def _score(self, number: int, probability: torch.Tensor, generator: Generator) -> float | None:
        """How much more probable the positive answer of two is, from the probabilities (vocabulary) of first tokens."""
        source = self._asked[number].row.source
        if source not in self._pairs:
            return None
        yes, no = self._first[source]
        if yes != no:
            return float(probability[yes] - probability[no])
        # The answers begin alike. What is learnt of earlier turns is the same with both.
        positive, other = generator.likelihoods(self._prompts.answered(number, self._pairs[source])).tolist()
        return float(positive - other)


def questions_of(data_dir: Path, split: str, limit: int | None) -> list[Question]:
    """All turns of a split's rows, or of the first rows of it; raises ConvkitError where there is none."""
    rows = (row for _, row in Dataset.open(data_dir).rows(split))
    found = questions(islice(rows, limit))
    if not found:
        raise ConvkitError(f"The split {split!r} of {data_dir} has no rows.")
    return found


def whole_batches(file: Path, size: int) -> int:
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


def _appending(file: Path, world: World) -> Any:
    return file.open("ab") if world.first else open(os.devnull, "wb")


def _gathered(lines: bytes, world: World) -> Iterator[bytes]:
    """Those of all processes in order, on the first."""
    if world.size == 1:
        yield lines
        return
    found: list[Any] | None = [None] * world.size if world.first else None
    dist.gather_object(lines, found)
    yield from found or ()

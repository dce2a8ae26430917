"""What must be known of every row before the first step: where it lies, and how long it is. No image is decoded."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from convkit.dataset import MAX_LINE_BYTES, Dataset, read_lines
from convkit.errors import DatasetError
from convkit.progress import Progress
from convkit.schema import Conversation


class Length(NamedTuple):
    """A row in tokens."""

    tokens: int
    trained: int
    """Those that a loss is taken of: what is learnt, but for the first token of the row."""


Measure = Callable[[Conversation], Length]


@dataclass
class Index:
    """The rows of a split, in 20 bytes each."""

    path: Path
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    tokens: "array[int]" = field(default_factory=lambda: array("I"))
    trained: "array[int]" = field(default_factory=lambda: array("I"))
    images: "array[int]" = field(default_factory=lambda: array("I"))
    shortest_with_images: int | None = None
    """The number of the row with the fewest tokens among those that have images; None if none has."""

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def lightest(self) -> int:
        """The number of the row with the fewest tokens that goes through all of the model: one with images, if any."""
        shortest = self.shortest_with_images
        return min(range(len(self)), key=self.tokens.__getitem__) if shortest is None else shortest

    def row(self, number: int) -> Conversation:
        """Read one row; rows are counted from 0."""
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            return Conversation.model_validate_json(file.readline(MAX_LINE_BYTES))


def build(dataset: Dataset, split: str, measure: Measure, max_tokens: int, progress: Progress) -> Index:
    """Read all rows of a split once.

    Args:
        measure: tells a row's length; what it raises names the row.
        max_tokens: longer rows are refused.
        progress: called with rows done, and in all.

    Raises:
        DatasetError: there is no such split, or a row is not sound, too long, or without anything to learn.
    """
    path = dataset.path(split)
    index, offset, total = Index(path), 0, dataset.manifest.splits[split].rows
    for line, (_, row) in zip(read_lines(path), dataset.rows(split), strict=True):
        length = measure(row)
        if not length.trained:
            raise DatasetError(f"{path}:{line.number}: row {row.id!r} has nothing to train on. Leave it out.")
        if length.tokens > max_tokens:
            raise DatasetError(
                f"{path}:{line.number}: row {row.id!r} has {length.tokens:,} tokens, more than --max_tokens "
                f"{max_tokens:,}; nothing is ever cut. Raise --max_tokens, lower --num_crops, or leave the row out."
            )
        index.images.append(sum(len(turn.images) for turn in row.conversations))
        shortest = index.shortest_with_images
        if index.images[-1] and (shortest is None or length.tokens < index.tokens[shortest]):
            index.shortest_with_images = len(index)
        index.offsets.append(offset)
        index.tokens.append(length.tokens)
        index.trained.append(length.trained)
        offset += len(line.raw) + 1
        progress(len(index), total)
    return index

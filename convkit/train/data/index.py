"""Row index of a split: where each row lies in the file, and how many tokens it has. No image is decoded."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from convkit.dataset import MAX_LINE_BYTES, Dataset, read_lines
from convkit.errors import ConvkitError, DatasetError
from convkit.schema import Row
from convkit.train.models.collate import Sample
from convkit.train.models.family import ModelFamily, RowLength
from convkit.utils.progress import Progress


class Dropped(NamedTuple):
    """A row that was left out because it has too many tokens."""

    line: int
    id: str
    tokens: int


Measure = Callable[[Row], RowLength]


@dataclass
class Index:
    """The rows of a split, stored in 20 bytes each."""

    path: Path
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))
    tokens: "array[int]" = field(default_factory=lambda: array("I"))
    supervised: "array[int]" = field(default_factory=lambda: array("I"))
    """Supervised tokens of each row: those with a loss."""
    images: "array[int]" = field(default_factory=lambda: array("I"))
    dropped: list[Dropped] = field(default_factory=list)
    """Rows of the split that are not in the index."""
    shortest_with_images: int | None = None
    """Position of the shortest row that has images; None if no row has any."""

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, row: Row, length: RowLength, offset: int) -> None:
        """Append a row that begins at byte `offset` of the file."""
        self.images.append(sum(len(turn.images) for turn in row.conversations))
        shortest = self.shortest_with_images
        if self.images[-1] and (shortest is None or length.tokens < self.tokens[shortest]):
            self.shortest_with_images = len(self)
        self.offsets.append(offset)
        self.tokens.append(length.tokens)
        self.supervised.append(length.supervised)

    @property
    def lightest(self) -> int:
        """Return the position of the shortest row that uses the whole model: one with images, if there is any."""
        shortest = self.shortest_with_images
        return min(range(len(self)), key=self.tokens.__getitem__) if shortest is None else shortest

    def row(self, number: int) -> Row:
        """Read one row by its position, counted from 0."""
        with self.path.open("rb") as file:
            file.seek(self.offsets[number])
            return Row.model_validate_json(file.readline(MAX_LINE_BYTES))


def encode(index: Index, number: int, family: ModelFamily, images: Path) -> Sample:
    """Encode one row by its position in the index.

    Raises:
        ConvkitError: the row cannot be read, or its length differs from the one in the index.
    """
    row = index.row(number)
    sample = family.encode(row, images)
    if len(sample) != index.tokens[number]:
        raise ConvkitError(
            f"Row {row.id!r} has {len(sample):,} tokens now, but had {index.tokens[number]:,} when "
            "tokens were counted: its images have changed. Restore them, or validate the dataset again."
        )
    return sample


def build(
    dataset: Dataset, split: str, measure: Measure, max_tokens: int, progress: Progress, drop_overlong: bool = False
) -> Index:
    """Read all rows of a split once and return their index.

    Args:
        measure: returns a row's length; its errors name the row.
        max_tokens: longer rows are an error.
        progress: called with the number of rows done and the total.
        drop_overlong: leave out longer rows and list them in `Index.dropped`.

    Raises:
        DatasetError: the split does not exist, or a row is invalid, too long, or without supervised tokens.
    """
    path = dataset.path(split)
    index, offset, total = Index(path), 0, dataset.manifest.splits[split].rows
    for done, (line, (_, row)) in enumerate(zip(read_lines(path), dataset.rows(split), strict=True), 1):
        length = measure(row)
        if not length.supervised:
            raise DatasetError(f"{path}:{line.number}: row {row.id!r} has no supervised tokens. Leave it out.")
        if length.tokens <= max_tokens:
            index.add(row, length, offset)
        elif drop_overlong:
            index.dropped.append(Dropped(line.number, row.id, length.tokens))
        else:
            raise DatasetError(
                f"{path}:{line.number}: row {row.id!r} has {length.tokens:,} tokens, more than --max_tokens "
                f"{max_tokens:,}; rows are never truncated. Raise --max_tokens, lower --num_crops, leave the row out, "
                "or leave out all such rows with --drop_overlong."
            )
        offset += len(line.raw) + 1
        progress(done, total)
    if index.dropped and not len(index):
        raise DatasetError(
            f"{path}: all of its {total:,} rows have more tokens than --max_tokens {max_tokens:,}. Raise it, or lower "
            "--num_crops."
        )
    return index

"""Encode one row and describe it as model input: tokens, supervised tokens, and image tiles."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from convkit import layout
from convkit.dataset import Dataset
from convkit.errors import DatasetError
from convkit.schema import Row
from convkit.train.models.family import ModelFamily
from convkit.train.models.tokenize import IGNORE_INDEX

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}
"""The byte for each letter of a byte-level tokenizer's vocabulary."""
Kind = Literal["context", "supervised", "image"]


@dataclass(frozen=True)
class Token:
    """A token of the model input."""

    position: int
    id: int
    text: str
    kind: Kind


@dataclass(frozen=True)
class RowView:
    """A row as the model receives it."""

    location: str
    """The row's file and line."""
    row: Row
    tokens: list[Token]
    answered: bool
    """The row has its last answer; without it, the tokens are a generation prompt."""
    tiles: list[Tensor]
    """Image tiles, (3, H, W) uint8."""

    def count(self, kind: Kind) -> int:
        """Return the number of tokens of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    def runs(self) -> list[tuple[Kind, list[Token]]]:
        """Return the runs of consecutive tokens of one kind."""
        return [(kind, list(tokens)) for kind, tokens in groupby(self.tokens, key=lambda token: token.kind)]


def inspect_row(directory: Path, wanted: str | int, family: ModelFamily, split: str | None = None) -> RowView:
    """Encode one row of a dataset as a model family does for training.

    Args:
        directory: a dataset directory.
        wanted: the id of the row, or its position, counted from 0 over the splits that are searched.
        family: the model family.
        split: the split that has the row. Default: search all splits.

    Raises:
        DatasetError: there is no such row.
        RowError: the row cannot become model input.
    """
    location, row = _find(Dataset.open(directory), wanted, split)
    answered = row.conversations[-1].assistant is not None
    make = family.encode if answered else family.encode_prompt
    sample = make(row, directory / layout.IMAGES)
    ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
    tokens = [
        Token(position, id, _text(family, id), _kind(family, id, label))
        for position, (id, label) in enumerate(zip(ids, labels, strict=True))
    ]
    return RowView(location, row, tokens, answered, family.tiles(sample))


def _find(dataset: Dataset, wanted: str | int, split: str | None) -> tuple[str, Row]:
    splits = [split] if split else list(dataset.manifest.splits)
    count = 0
    for name in splits:
        for location, row in dataset.rows(name):
            if wanted == (count if isinstance(wanted, int) else row.id):
                return location, row
            count += 1
    where = f"{dataset.directory} has no row {wanted!r} in {', '.join(splits) or 'any split'}"
    if isinstance(wanted, int):
        remedy = f"Pass an --index below {count:,}" if count else "Choose a split that has rows"
        raise DatasetError(f"{where}. {remedy}.")
    raise DatasetError(f"{where}. Pass the id of an existing row.")


def _kind(family: ModelFamily, id: int, label: int) -> Kind:
    if label != IGNORE_INDEX:
        return "supervised"
    return "image" if id in family.image_token_ids else "context"


def _text(family: ModelFamily, id: int) -> str:
    """Decode one token; a token that is part of a letter is shown as bytes."""
    token = str(family.tokenizer.convert_ids_to_tokens(id))
    if "\u2581" in token:
        return token.replace("\u2581", " ")
    text = str(family.tokenizer.decode([id]))
    if "\ufffd" not in text:
        return text
    byte_level = not token.isascii() and set(token) <= _BYTES.keys()
    return bytes(_BYTES[letter] for letter in token).decode(errors="backslashreplace") if byte_level else token

"""What a model will see of a row: its tokens, which of them are trained on, and its images as they were processed."""

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
"""How byte-level tokenizers write what is no letter by itself."""
Kind = Literal["context", "trained", "image"]


@dataclass(frozen=True)
class Token:
    """One token as it stands in the model's input."""

    position: int
    id: int
    text: str
    kind: Kind


@dataclass(frozen=True)
class RowView:
    """A row as the model sees it."""

    place: str
    """File and line."""
    row: Row
    tokens: list[Token]
    answered: bool
    """Whether it can be trained on; without its last answer it is a prompt."""
    tiles: list[Tensor]
    """(3, H, W) uint8."""

    def count(self, kind: Kind) -> int:
        """Tokens of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    def runs(self) -> list[tuple[Kind, list[Token]]]:
        """Tokens of one kind that stand side by side."""
        return [(kind, list(tokens)) for kind, tokens in groupby(self.tokens, key=lambda token: token.kind)]


def inspect_row(directory: Path, row_id: str, family: ModelFamily, split: str | None = None) -> RowView:
    """What the model of an adapter will see of one row.

    Args:
        directory: a dataset directory.
        split: where the row is; all are searched if it is not given.

    Raises:
        DatasetError: there is no such row.
        RowError: it cannot become model input.
    """
    place, row = _find(Dataset.open(directory), row_id, split)
    answered = row.conversations[-1].assistant is not None
    make = family.encode if answered else family.encode_prompt
    sample = make(row, directory / layout.IMAGES)
    ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
    tokens = [
        Token(position, id, _text(family, id), _kind(family, id, label))
        for position, (id, label) in enumerate(zip(ids, labels, strict=True))
    ]
    return RowView(place, row, tokens, answered, family.tiles(sample))


def _find(dataset: Dataset, row_id: str, split: str | None) -> tuple[str, Row]:
    splits = [split] if split else list(dataset.manifest.splits)
    for name in splits:
        for place, row in dataset.rows(name):
            if row.id == row_id:
                return place, row
    raise DatasetError(
        f"{dataset.directory} has no row {row_id!r} in {', '.join(splits) or 'any split'}. Take an id from a row file."
    )


def _kind(family: ModelFamily, id: int, label: int) -> Kind:
    if label != IGNORE_INDEX:
        return "trained"
    return "image" if id in family.image_token_ids else "context"


def _text(family: ModelFamily, id: int) -> str:
    """A token by itself; of a letter in several tokens only the bytes are known."""
    token = str(family.tokenizer.convert_ids_to_tokens(id))
    if "\u2581" in token:
        return token.replace("\u2581", " ")
    text = str(family.tokenizer.decode([id]))
    if "\ufffd" not in text:
        return text
    byte_level = not token.isascii() and set(token) <= _BYTES.keys()
    return bytes(_BYTES[letter] for letter in token).decode(errors="backslashreplace") if byte_level else token

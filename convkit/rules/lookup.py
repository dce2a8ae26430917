"""Reading rows a second time: checks keep digests, and look up here what they stand for once there is a finding."""

from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from convkit import layout
from convkit.dataset import MAX_LINE_BYTES, read_lines
from convkit.findings import Finding
from convkit.rules.base import DatasetFiles, Location, Problem, RowFile, Rule
from convkit.rules.file import without_marks
from convkit.schema import Row
from convkit.utils.digests import Column, digest, from_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convkit.utils.digests import Digests

    Indices = NDArray[np.intp]

MOST_LISTED = 1000
"""Findings of one rule about rows against each other; the rest is counted, because each costs a look."""
_MOST_SHOWN = 80
_BUFFERED = 8192


def split_names(dataset: DatasetFiles) -> list[str]:
    """The split of each row file: the manifest's name, or that in the file's name."""
    stated = {split.file: name for name, split in (dataset.manifest.splits if dataset.manifest else {}).items()}
    guessed = layout.split_names([file.path for file in dataset.files])
    return [stated.get(file.path.name, name) for file, name in zip(dataset.files, guessed, strict=True)]


def sound_rows(file: RowFile, lines: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file with their line numbers, without those that are not sound.

    Args:
        lines: no others are parsed; all are if not given.
    """
    for line in () if file.missing else read_lines(file.path, MAX_LINE_BYTES):
        if lines is None or line.number in lines:
            try:
                yield line.number, Row.model_validate_json(without_marks(line.raw))
            except ValidationError:
                continue


def image_paths(row: Row) -> Iterator[tuple[str, str]]:
    """The images of a row, each with a pointer to it."""
    for index, turn in enumerate(row.conversations):
        for number, path in enumerate(turn.images):
            yield path, f"/conversations/{index}/images/{number}"


def quoted(text: str) -> str:
    """A text of any length in quotation marks, for a message."""
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


class Found(NamedTuple):
    """The first place of a text in a split."""

    location: Location
    pointer: str
    text: str

    def __str__(self) -> str:
        return f"{self.location.file}:{self.location.line}"


Key = tuple[str, int]
"""A split, and the digest of a text."""


def first_places(
    dataset: DatasetFiles, wanted: Iterable[Key], texts: Callable[[Row], Iterable[tuple[str, str]]]
) -> dict[Key, Found]:
    """Where texts stand first in splits; reads the files of these splits until all are found.

    Args:
        texts: those of a row, each with a pointer to it.
    """
    missing: dict[str, set[int]] = {}
    for split, key in wanted:
        missing.setdefault(split, set()).add(key)
    found: dict[Key, Found] = {}
    for file, split in zip(dataset.files, split_names(dataset), strict=True):
        looked_for = missing.get(split, set())
        for line, row in sound_rows(file) if looked_for else ():
            for text, pointer in texts(row):
                if (key := digest(text.encode(), dataset.key)) in looked_for:
                    looked_for.remove(key)
                    found[split, key] = Found(Location(file.name, line, row.id), pointer, text)
            if not looked_for:
                break
    return found


def not_listed(dataset: DatasetFiles, rule: Rule, count: int, most: int | None = None) -> Iterator[Finding]:
    """A last finding that counts what is not listed, if anything is not; `MOST_LISTED` are if not given."""
    most = MOST_LISTED if most is None else most
    if count > most:
        problem = Problem(rule, f"{count - most:,} more findings of this rule are not listed")
        yield Location(dataset.files[0].name).finding(problem).model_copy(update={"count": count - most})


def runs(*columns: "Digests") -> "tuple[Indices, Indices]":
    """Where runs of equal values begin in columns that are sorted together, and their lengths."""
    import numpy as np

    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(new)
    return starts, np.diff(np.append(starts, len(new)))


class Growing:
    """Digests that come one by one."""

    def __init__(self) -> None:
        self._column = Column()
        self._new = array("Q")

    def add(self, *values: int) -> None:
        """Add at the end."""
        self._new.extend(values)
        if len(self._new) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        self._column.append(from_bytes(self._new.tobytes()))
        self._new = array("Q")

    def all(self) -> "Digests":
        """All of them."""
        import numpy as np

        self._flush()
        return np.concatenate([np.zeros(0, np.uint64), *self._column.blocks()])

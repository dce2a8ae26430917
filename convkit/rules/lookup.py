"""Read rows a second time: checks keep digests only, and look up the texts here once they have a finding."""

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

MAX_LISTED = 1000
"""Maximum number of listed findings per rule that compares rows, because each is looked up; the rest is counted."""
_MAX_TEXT = 80
_BUFFERED = 8192
LINE_BITS = 40
"""The address of a row is `file << LINE_BITS | line`."""


def lines_by_file(addresses: Iterable[int]) -> list[tuple[int, set[int]]]:
    """Group row addresses by file, in the order of files."""
    lines: dict[int, set[int]] = {}
    for address in addresses:
        lines.setdefault(address >> LINE_BITS, set()).add(address & (1 << LINE_BITS) - 1)
    return sorted(lines.items())


def split_names(dataset: DatasetFiles) -> list[str]:
    """Return the split of each row file, from the manifest or from the file name."""
    stated = {split.file: name for name, split in (dataset.manifest.splits if dataset.manifest else {}).items()}
    guessed = layout.split_names([file.path for file in dataset.files])
    return [stated.get(file.path.name, name) for file, name in zip(dataset.files, guessed, strict=True)]


def sound_rows(file: RowFile, lines: Container[int] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the valid rows of a file with their line numbers.

    Args:
        lines: the lines to parse; all if not given.
    """
    for line in () if file.missing else read_lines(file.path, MAX_LINE_BYTES):
        if lines is None or line.number in lines:
            try:
                yield line.number, Row.model_validate_json(without_marks(line.raw))
            except ValidationError:
                continue


def valid_rows(dataset: DatasetFiles) -> Iterator[tuple[Location, Row]]:
    """Yield the valid rows of all files with their locations, for a check whose `end` reads texts."""
    for file in dataset.files:
        for line, row in sound_rows(file):
            yield Location(file.name, line, row.id), row


def image_paths(row: Row) -> Iterator[tuple[str, str]]:
    """Yield each image path of a row with its JSON pointer."""
    for index, turn in enumerate(row.conversations):
        for number, path in enumerate(turn.images):
            yield path, f"/conversations/{index}/images/{number}"


def quoted(text: str) -> str:
    """Quote a text for a message, shortened if it is long."""
    return repr(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")


class FirstUse(NamedTuple):
    """The first occurrence of a text in a split."""

    location: Location
    pointer: str
    text: str

    def __str__(self) -> str:
        return f"{self.location.file}:{self.location.line}"


Key = tuple[str, int]
"""A split and the digest of a text in it."""


def first_uses(
    dataset: DatasetFiles, wanted: Iterable[Key], texts: Callable[[Row], Iterable[tuple[str, str]]]
) -> dict[Key, FirstUse]:
    """Return the first occurrence of each wanted text; read the files of its split until all are found.

    Args:
        texts: returns the texts of a row to compare, each with its JSON pointer.
    """
    missing: dict[str, set[int]] = {}
    for split, key in wanted:
        missing.setdefault(split, set()).add(key)
    found: dict[Key, FirstUse] = {}
    for file, split in zip(dataset.files, split_names(dataset), strict=True):
        looked_for = missing.get(split, set())
        for line, row in sound_rows(file) if looked_for else ():
            for text, pointer in texts(row):
                if (key := digest(text.encode(), dataset.key)) in looked_for:
                    looked_for.remove(key)
                    found[split, key] = FirstUse(Location(file.name, line, row.id), pointer, text)
            if not looked_for:
                break
    return found


def unlisted(dataset: DatasetFiles, rule: Rule, count: int, most: int | None = None) -> Iterator[Finding]:
    """Yield a last finding that counts those beyond the limit, if there are any.

    Args:
        most: the limit, `MAX_LISTED` if not given.
    """
    most = MAX_LISTED if most is None else most
    if count > most:
        problem = Problem(rule, f"{count - most:,} more findings of this rule are not listed")
        yield Location(dataset.files[0].name).finding(problem).model_copy(update={"count": count - most})


def runs(*columns: "Digests") -> "tuple[Indices, Indices]":
    """Return starts and lengths of runs of equal values in columns that are sorted together."""
    import numpy as np

    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(new)
    return starts, np.diff(np.append(starts, len(new)))


class DigestBuffer:
    """A growing array of digests that arrive one by one."""

    def __init__(self) -> None:
        self._column = Column()
        self._new = array("Q")

    def add(self, *values: int) -> None:
        """Append digests to the buffer."""
        self._new.extend(values)
        if len(self._new) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        self._column.append(from_bytes(self._new.tobytes()))
        self._new = array("Q")

    def all(self) -> "Digests":
        """Return all digests as one array."""
        import numpy as np

        self._flush()
        return np.concatenate([np.zeros(0, np.uint64), *self._column.blocks()])

"""The journal of an unfinished conversion: what became of each entry of the source, in order.

One JSON line an entry, written after its media are in place. A run that was killed leaves a journal whose last line
may be torn; it is cut, and the conversion goes on behind it. Each line carries a digest chained over all entries so
far, so a source that changed in between is noticed at the first entry that differs.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import from_json, to_json

from convkit.converters.base import Exclude, Item, Reject
from convkit.errors import DatasetError

SYNC_SECONDS = 5.0


@dataclass(frozen=True)
class Written:
    """An item, or what of it belongs to a split, that became rows."""

    split: str
    lines: tuple[str, ...]
    """The rows as JSON."""
    ids: tuple[str, ...]
    turns: int
    images: int
    media: tuple[tuple[str, int], ...]
    """(image path, bytes) of each file that it brings; in the journal, without what an earlier item brought."""
    notes: tuple[str, ...]
    units: int


Entry = Item | Reject | Exclude
Outcome = Written | Reject | Exclude
_KINDS: dict[str, type[Outcome]] = {"written": Written, "reject": Reject, "exclude": Exclude}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def chain(previous: str, entry: Entry) -> str:
    """The digest of all entries up to this one."""
    return hashlib.sha256(f"{previous}{entry!r}".encode(errors="surrogateescape")).hexdigest()


class Journal:
    """An append-only file of (digest, outcomes), one line an entry of the source."""

    def __init__(self, path: Path, images: Path) -> None:
        self.path = path
        self._images = images
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()

    def has_rows(self) -> bool:
        """Whether anything in it became a row."""
        return any(isinstance(outcome, Written) for _, (_, outcomes) in self._lines() for outcome in outcomes)

    def recover(self) -> Iterator[tuple[str, tuple[Outcome, ...]]]:
        """Give what is sound, and cut the file behind it: a torn line, or media that a power failure took."""
        position = 0
        for size, (digest, outcomes) in self._lines():
            if not all(map(self._in_place, outcomes)):
                break
            position += size
            yield digest, outcomes
        if self.path.exists():
            os.truncate(self.path, position)

    def _lines(self) -> Iterator[tuple[int, tuple[str, tuple[Outcome, ...]]]]:
        """The length of each line and what it says, up to the first that is torn."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if (parsed := _parse(line)) is None:
                    return
                yield len(line), parsed

    def _in_place(self, outcome: Outcome) -> bool:
        return not isinstance(outcome, Written) or all(_has_size(self._images / p, n) for p, n in outcome.media)

    def append(self, digest: str, outcomes: tuple[Outcome, ...]) -> None:
        """Add one entry; it survives the process at once, and the machine within seconds."""
        if self._file is None:
            import jsonlines  # here: workers need the outcomes alone

            self._file = self.path.open("ab")
            self._writer = jsonlines.Writer(cast(Any, self._file), dumps=to_json)
        self._writer.write([digest, [[_NAMES[type(outcome)], outcome] for outcome in outcomes]])
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file; reading goes on being possible."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[Outcome]:
        """All outcomes, in order.

        Raises:
            DatasetError: the journal was changed by somebody else.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                parsed = _parse(line)
                if parsed is None:
                    raise DatasetError(f"{self.path}:{number} was changed during the conversion. Remove the directory.")
                yield from parsed[1]


def _parse(line: bytes) -> tuple[str, tuple[Outcome, ...]] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        digest, outcomes = from_json(line)
        return digest, tuple(_KINDS[kind](**fields) for kind, fields in outcomes)
    except (ValueError, KeyError, TypeError):
        return None


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False

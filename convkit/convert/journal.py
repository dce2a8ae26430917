"""The journal of an unfinished conversion: the outcomes of each entry of the source, in order.

Each entry is one JSON line, written after its media are in place. A killed run leaves a journal whose last line may be
incomplete. That line is cut off, and the conversion resumes after the line before it. Each line holds a digest chained
over all entries so far. A source that changed in between is therefore detected at the first entry that differs.
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
    """An item, or one record of it, that became rows."""

    split: str
    lines: tuple[str, ...]
    """The rows as JSON lines."""
    ids: tuple[str, ...]
    turns: int
    images: int
    media: tuple[tuple[str, int], ...]
    """(image path, bytes) of each new file; the journal omits files that an earlier item wrote."""
    notes: tuple[str, ...]
    units: int


Entry = Item | Reject | Exclude
Outcome = Written | Reject | Exclude
_KINDS: dict[str, type[Outcome]] = {"written": Written, "reject": Reject, "exclude": Exclude}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def extend_digest(previous: str, entry: Entry) -> str:
    """Return the digest of all entries up to this one."""
    return hashlib.sha256(f"{previous}{entry!r}".encode(errors="surrogateescape")).hexdigest()


class Journal:
    """An append-only file of (digest, outcomes), one line per entry of the source."""

    def __init__(self, path: Path, images: Path) -> None:
        self.path = path
        self._images = images
        self._file: BinaryIO | None = None
        self._synced = time.monotonic()

    def has_rows(self) -> bool:
        """Return whether any entry became a row."""
        return any(isinstance(outcome, Written) for _, (_, outcomes) in self._lines() for outcome in outcomes)

    def recover(self) -> Iterator[tuple[str, tuple[Outcome, ...]]]:
        """Yield the intact entries, then truncate the file after them.

        The first entry that is not intact has an incomplete line, or media that a power failure lost.
        """
        position = 0
        for size, (digest, outcomes) in self._lines():
            if not all(map(self._media_complete, outcomes)):
                break
            position += size
            yield digest, outcomes
        if self.path.exists():
            os.truncate(self.path, position)

    def _lines(self) -> Iterator[tuple[int, tuple[str, tuple[Outcome, ...]]]]:
        """Yield the length and the content of each line, up to the first incomplete one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if (parsed := _parse(line)) is None:
                    return
                yield len(line), parsed

    def _media_complete(self, outcome: Outcome) -> bool:
        return not isinstance(outcome, Written) or all(_has_size(self._images / p, n) for p, n in outcome.media)

    def append(self, digest: str, outcomes: tuple[Outcome, ...]) -> None:
        """Append one entry; it survives a killed process at once, and a power failure after `SYNC_SECONDS`."""
        if self._file is None:
            import jsonlines  # imported here, because workers need only the outcome classes

            self._file = self.path.open("ab")
            self._writer = jsonlines.Writer(cast(Any, self._file), dumps=to_json)
        self._writer.write([digest, [[_NAMES[type(outcome)], outcome] for outcome in outcomes]])
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file; `read` still works afterwards."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Iterator[Outcome]:
        """Yield all outcomes in order.

        Raises:
            DatasetError: another process changed the journal.
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

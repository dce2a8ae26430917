"""Registry of names: each row id and image path is given to one item, in the order of the source.

Workers leave media in the scratch folder, and only media whose names were reserved are moved into the dataset. A
rejected item therefore leaves no files, and no image replaces another.
"""

import filecmp
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from convkit.convert.journal import Outcome, Written
from convkit.convert.worker import StagedOutcome
from convkit.converters.base import Reject
from convkit.utils.digests import DigestSet
from convkit.utils.files import move

RECENT = 2**16
"""The most names kept in a Python set, at some 80 bytes each."""


class NameSet:
    """A set of names, stored as hashes: recent ones in a Python set, older ones in eight bytes each."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older = DigestSet()

    def __bool__(self) -> bool:
        return bool(self._recent) or len(self._older) > 0

    def prefetch(self, names: Iterable[str]) -> None:
        """Copy those names that are among the older ones to the recent ones; call it before any other question."""
        if len(self._recent) <= RECENT and not len(self._older):
            return
        import numpy as np  # imported here, because small conversions do not need it

        if len(self._recent) > RECENT:
            self._older.add(np.fromiter(self._recent, np.int64).view(np.uint64))
            self._recent.clear()
        hashes = np.fromiter(map(hash, names), np.int64)
        self._recent.update(hashes[self._older.contains(hashes.view(np.uint64))].tolist())

    def taken(self, names: Iterable[str]) -> list[str]:
        """Return the names that are in the set, in order."""
        return [name for name in names if hash(name) in self._recent]

    def all_free(self, names: Sequence[str]) -> bool:
        """Return whether the names differ from each other and none is in the set."""
        hashes = set(map(hash, names))
        return len(hashes) == len(names) and self._recent.isdisjoint(hashes)

    def add(self, names: Iterable[str]) -> None:
        """Add names to the set."""
        self._recent.update(map(hash, names))


class NameRegistry:
    """The row ids and image paths that are in use.

    Args:
        images: the folder that image paths are relative to.
    """

    def __init__(self, images: Path) -> None:
        self._images = os.fspath(images)
        self._ids = NameSet()
        self._media = NameSet()

    @property
    def has_rows(self) -> bool:
        """True if any row id is in use."""
        return bool(self._ids)

    def restore(self, outcome: Outcome) -> None:
        """Register the names of an outcome from the journal."""
        self._prefetch(*_names([outcome]))
        self._add(outcome)

    def reserve(self, parts: Sequence[StagedOutcome], address: str) -> tuple[Outcome, ...]:
        """Reserve the names of an item's outcomes and move their media into place.

        An outcome whose names are in use becomes a `Reject`.

        Args:
            address: the position of the item in the source.

        Returns:
            The outcomes for the journal; their media are those that no earlier outcome wrote.
        """
        ids, media = _names([part.outcome for part in parts])
        self._prefetch(ids, media)
        if self._ids.all_free(ids) and self._media.all_free(media):
            return tuple(self._place(part) for part in parts)
        return tuple(self._resolve(part, address) for part in parts)

    def _prefetch(self, ids: Sequence[str], media: Sequence[str]) -> None:
        self._ids.prefetch(ids)
        self._media.prefetch(media)

    def _add(self, outcome: Outcome) -> None:
        ids, media = _names([outcome])
        self._ids.add(ids)
        self._media.add(media)

    def _resolve(self, part: StagedOutcome, address: str) -> Outcome:
        outcome = part.outcome
        if not isinstance(outcome, Written):
            return outcome
        staged = dict(zip([path for path, _ in outcome.media], part.staged, strict=True))
        present = self._media.taken(staged)
        if conflict := self._conflict(outcome, {path: staged[path] for path in present}):
            _remove(staged.values())
            return Reject(address, *conflict, outcome.units)
        if present:
            _remove(staged.pop(path) for path in present)
            outcome = replace(outcome, media=tuple(media for media in outcome.media if media[0] in staged))
        return self._place(StagedOutcome(outcome, tuple(staged.values())))

    def _place(self, part: StagedOutcome) -> Outcome:
        """Move an outcome's media to their names and register these."""
        outcome = part.outcome
        if isinstance(outcome, Written):
            for (path, _), temporary in zip(outcome.media, part.staged, strict=True):
                move(temporary, f"{self._images}/{path}")
            self._add(outcome)
        return outcome

    def _conflict(self, outcome: Written, present: dict[str, str]) -> tuple[str, str] | None:
        """Return rule and reason of a name that something else has; None if all are available.

        Args:
            present: the scratch files of media whose paths are in use, by path.
        """
        if taken := self._ids.taken(outcome.ids):
            return "duplicate-id", f"an earlier row has its row id {taken[0]}"
        for path, temporary in present.items():
            if not filecmp.cmp(temporary, f"{self._images}/{path}", shallow=False):
                return "media-conflict", f"an earlier item has another image of the name {path}"
        return None


def _names(outcomes: Sequence[Outcome]) -> tuple[list[str], list[str]]:
    """Return the row ids and image paths of all outcomes that became rows."""
    written = [outcome for outcome in outcomes if isinstance(outcome, Written)]
    ids = [row_id for outcome in written for row_id in outcome.ids]
    return ids, [path for outcome in written for path, _ in outcome.media]


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        os.unlink(path)

"""Who has which name: row ids and image paths are given out once, in the order of the source.

Workers leave media in the scratch folder; only what keeps its names is moved into the product. So an item that is
rejected leaves nothing behind, and no image is ever replaced by another one's.
"""

import filecmp
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from convkit.convert.batch import Converted, apart
from convkit.convert.journal import Outcome, Written
from convkit.converters.base import Reject
from convkit.utils.digests import DigestSet
from convkit.utils.files import move

RECENT = 2**16
"""Names that are kept in a set of Python, in some 80 bytes each."""


class Names:
    """A set of names, as hashes: the latest as Python has them, all before in eight bytes each."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older = DigestSet()

    def __bool__(self) -> bool:
        return bool(self._recent) or len(self._older) > 0

    def recall(self, names: Iterable[str]) -> None:
        """Look names up among the older ones, many at once; to be called before `taken` is asked about them."""
        if len(self._recent) <= RECENT and not len(self._older):
            return
        import numpy as np  # here: small conversions do without

        if len(self._recent) > RECENT:
            self._older.add(np.fromiter(self._recent, np.int64).view(np.uint64))
            self._recent.clear()
        hashes = np.fromiter(map(hash, names), np.int64)
        self._recent.update(hashes[self._older.contains(hashes.view(np.uint64))].tolist())

    def taken(self, names: Iterable[str]) -> list[str]:
        """Those that are taken already, in order."""
        return [name for name in names if hash(name) in self._recent]

    def free(self, names: Sequence[str]) -> bool:
        """Whether none is taken, nor there twice."""
        hashes = set(map(hash, names))
        return len(hashes) == len(names) and self._recent.isdisjoint(hashes)

    def add(self, names: Iterable[str]) -> None:
        """Take them."""
        self._recent.update(map(hash, names))


class Claims:
    """The names taken so far."""

    def __init__(self, images: Path) -> None:
        self._images = os.fspath(images)
        self._ids = Names()
        self._media = Names()

    @property
    def rows(self) -> bool:
        """Whether there is any."""
        return bool(self._ids)

    def take(self, outcome: Outcome) -> None:
        """Note the names of an outcome that has them already."""
        self._recall(*_names([outcome]))
        self._add(outcome)

    def settle(self, parts: Sequence[Converted], address: str) -> tuple[Outcome, ...]:
        """Put the media of an item's outcomes in place, or reject those of which something else has a name.

        Args:
            address: where the item stands in the source.

        Returns:
            What the journal is to hold: of the media, those that no earlier outcome has brought.
        """
        ids, media = _names([part.outcome for part in parts])
        self._recall(ids, media)
        if self._ids.free(ids) and self._media.free(media):
            return tuple(self._placed(part) for part in parts)
        return tuple(self._settle(part, address) for part in apart(parts))

    def _recall(self, ids: Sequence[str], media: Sequence[str]) -> None:
        self._ids.recall(ids)
        self._media.recall(media)

    def _add(self, outcome: Outcome) -> None:
        ids, media = _names([outcome])
        self._ids.add(ids)
        self._media.add(media)

    def _settle(self, converted: Converted, address: str) -> Outcome:
        outcome = converted.outcome
        if not isinstance(outcome, Written):
            return outcome
        staged = dict(zip([path for path, _ in outcome.media], converted.staged, strict=True))
        present = self._media.taken(staged)
        if conflict := self._conflict(outcome, {path: staged[path] for path in present}):
            _remove(staged.values())
            return Reject(address, *conflict, outcome.units)
        if present:
            _remove(staged.pop(path) for path in present)
            outcome = replace(outcome, media=tuple(media for media in outcome.media if media[0] in staged))
        return self._placed(Converted(outcome, tuple(staged.values())))

    def _placed(self, converted: Converted) -> Outcome:
        """Give an outcome the names that it asks for."""
        outcome = converted.outcome
        if isinstance(outcome, Written):
            for (path, _), temporary in zip(outcome.media, converted.staged, strict=True):
                move(temporary, f"{self._images}/{path}")
            self._add(outcome)
        return outcome

    def _conflict(self, outcome: Written, present: dict[str, str]) -> tuple[str, str] | None:
        """Rule and reason.

        Args:
            present: the scratch files of those of its media whose names are taken.
        """
        if taken := self._ids.taken(outcome.ids):
            return "duplicate-id", f"an earlier row has its row id {taken[0]}"
        for path, temporary in present.items():
            if not filecmp.cmp(temporary, f"{self._images}/{path}", shallow=False):
                return "media-conflict", f"an earlier item has another image of the name {path}"
        return None


def _names(outcomes: Sequence[Outcome]) -> tuple[list[str], list[str]]:
    """Row ids and image paths of all that became rows."""
    written = [outcome for outcome in outcomes if isinstance(outcome, Written)]
    ids = [row_id for outcome in written for row_id in outcome.ids]
    return ids, [path for outcome in written for path, _ in outcome.media]


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        os.unlink(path)

"""Who has which name: row ids and image paths are given out once, in the order of the source.

Workers leave media in the scratch folder; only what keeps its names is moved into the product. So an item that is
rejected leaves nothing behind, and no image is ever replaced by another one's.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from convkit.converters.base import Reject
from convkit.files import move
from convkit.journal import Outcome, Written


@dataclass(frozen=True)
class Converted:
    """An outcome with the scratch files of its media, in their order."""

    outcome: Outcome
    staged: tuple[str, ...] = ()


class Claims:
    """The names taken so far; hashes of them, since a large data set has millions."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._ids: set[int] = set()
        self._media: dict[int, int] = {}

    @property
    def rows(self) -> int:
        """How many row ids are taken."""
        return len(self._ids)

    def take(self, outcome: Outcome) -> None:
        """Note the names of an outcome that has them already."""
        if isinstance(outcome, Written):
            self._ids.update(map(hash, outcome.ids))
            self._media.update((hash(path), hash(digest)) for path, _, digest in outcome.media)

    def settle(self, converted: Converted, address: str) -> Outcome:
        """Put an outcome's media in place, or reject it where a name of its is taken by something else.

        Args:
            address: where its item stands in the source.

        Returns:
            What the journal is to hold: of the media, those that no earlier item has brought.
        """
        outcome = converted.outcome
        if not isinstance(outcome, Written):
            return outcome
        if conflict := self._conflict(outcome):
            _remove(converted.staged)
            return Reject(address, *conflict, outcome.units)
        brought = []
        for temporary, media in zip(converted.staged, outcome.media, strict=True):
            if hash(media[0]) in self._media:
                os.unlink(temporary)
            else:
                move(temporary, os.path.join(self._images, media[0]))
                brought.append(media)
        outcome = replace(outcome, media=tuple(brought))
        self.take(outcome)
        return outcome

    def _conflict(self, outcome: Written) -> tuple[str, str] | None:
        """Rule and reason."""
        if taken := next((i for i in outcome.ids if hash(i) in self._ids), None):
            return "duplicate-id", f"an earlier row has its row id {taken}"
        for path, _, digest in outcome.media:
            if self._media.get(hash(path), hash(digest)) != hash(digest):
                return "media-conflict", f"an earlier item has another image of the name {path}"
        return None


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        os.unlink(path)

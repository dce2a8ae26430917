"""What workers send back: the records of an item gathered by split, since a thousand small objects cost more to send,
to write down and to read again than one of a thousand rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from convkit.convert.journal import Outcome, Written
from convkit.converters.base import Record, Reject
from convkit.utils.files import size_of


class Share(NamedTuple):
    """How much of what was gathered a record has."""

    number: int
    """Its place in the item."""
    rows: int
    turns: int
    images: int
    media: int
    notes: int
    units: int


@dataclass(frozen=True)
class Converted:
    """An outcome with the scratch files of its media, in their order."""

    outcome: Outcome
    staged: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    """Of the records that became rows, in order."""
    number: int = 0
    """Its place in the item, if it is of one record, or rejected."""


@dataclass
class Gathered:
    """The records of one split, so far."""

    split: str
    lines: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    media: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)

    def add(self, number: int, record: Record, staged: Sequence[str]) -> None:
        """Add a record whose media are in the scratch folder."""
        turns = images = 0
        for row in record.rows:
            self.lines.append(row.to_line().decode())
            self.ids.append(row.id)
            turns += len(row.conversations)
            for turn in row.conversations:
                images += len(turn.images)
        for path, content in record.media.items():
            self.media.append((path, size_of(content)))
        self.notes += record.notes
        self.staged += staged
        share = Share(number, len(record.rows), turns, images, len(staged), len(record.notes), record.units)
        self.shares.append(share)

    def converted(self) -> Converted:
        """All of them."""
        written = Written(
            split=self.split,
            lines=tuple(self.lines),
            ids=tuple(self.ids),
            turns=sum(share.turns for share in self.shares),
            images=sum(share.images for share in self.shares),
            media=tuple(self.media),
            notes=tuple(self.notes),
            units=sum(share.units for share in self.shares),
        )
        return Converted(written, tuple(self.staged), tuple(self.shares))


def gather(parts: Iterable[tuple[Record, Sequence[str]] | Reject]) -> tuple[Converted, ...]:
    """The records of an item, each with its scratch files, by split; then what is rejected."""
    splits: dict[str, Gathered] = {}
    rejected = []
    for number, part in enumerate(parts):
        if isinstance(part, Reject):
            rejected.append(Converted(part, number=number))
        else:
            record, staged = part
            splits.setdefault(record.split, Gathered(record.split)).add(number, record, staged)
    return (*(gathered.converted() for gathered in splits.values()), *rejected)


def apart(parts: Sequence[Converted]) -> list[Converted]:
    """What was gathered, record by record again and with what is rejected between them, as it was converted."""
    return sorted((record for part in parts for record in _records(part)), key=lambda record: record.number)


def _records(part: Converted) -> Iterator[Converted]:
    whole = part.outcome
    if not isinstance(whole, Written):
        yield part
        return
    lines, ids, media = iter(whole.lines), iter(whole.ids), iter(whole.media)
    notes, staged = iter(whole.notes), iter(part.staged)
    for share in part.shares:
        written = Written(
            split=whole.split,
            lines=tuple(islice(lines, share.rows)),
            ids=tuple(islice(ids, share.rows)),
            turns=share.turns,
            images=share.images,
            media=tuple(islice(media, share.media)),
            notes=tuple(islice(notes, share.notes)),
            units=share.units,
        )
        yield Converted(written, tuple(islice(staged, share.media)), (share,), share.number)

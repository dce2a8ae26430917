"""A worker turns each part of an item into one outcome, in order."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from convkit.convert.journal import Outcome, Written
from convkit.convert.worker import convert_entry
from convkit.converters.base import Converter, Item, Options, Record, Reject
from convkit.schema import Row, Turn


def _row(row_id: str, images: Sequence[str]) -> Row:
    turns = [Turn(images=tuple(images), user="What?", assistant="That."), Turn(images=(), user="And?", assistant="No.")]
    return Row(id=row_id, source="s", conversations=tuple(turns))


@st.composite
def _parts(draw: st.DrawFn) -> list[Record | Reject]:
    parts: list[Record | Reject] = []
    for number in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            names = [f"{number}-{k}.png" for k in range(draw(st.integers(0, 2)))]
            rows = tuple(_row(f"{number}-{k}", names) for k in range(draw(st.integers(1, 2))))
            media = {name: name.encode() * (number + 1) for name in names}
            notes = draw(st.lists(st.sampled_from(["turned", "flattened"]), max_size=2))
            parts.append(Record(draw(st.sampled_from(["train", "val"])), rows, media, number + 1, tuple(notes)))
        else:
            parts.append(Reject(f"item:{number}", "bad", "is bad", number + 1))
    return parts


@dataclass(frozen=True)
class Batch(Item):
    parts: tuple[Record | Reject, ...]

    @property
    def units(self) -> int:
        return sum(part.units for part in self.parts)


class Batches(Converter[Batch]):
    name, unit, version = "batches", "part", 1

    def items(self) -> Iterator[Batch]:
        raise NotImplementedError

    def convert(self, item: Batch) -> Iterator[Record | Reject]:
        yield from item.parts


def _expected(part: Record | Reject) -> Outcome:
    if isinstance(part, Reject):
        return part
    return Written(
        split=part.split,
        lines=tuple(row.to_line().decode() for row in part.rows),
        ids=tuple(row.id for row in part.rows),
        turns=2 * len(part.rows),
        images=len(part.media) * len(part.rows),
        media=tuple((path, len(content)) for path, content in part.media.items() if isinstance(content, bytes)),
        notes=part.notes,
        units=part.units,
    )


@given(_parts())
def test_each_part_of_an_item_is_one_outcome_with_its_own_media(parts: list[Record | Reject]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        staged = convert_entry(Batches(Path(scratch), Options()), Path(scratch), Batch("item", tuple(parts)))
        assert [part.outcome for part in staged] == list(map(_expected, parts))
        for part, result in zip(parts, staged, strict=True):
            media = part.media.values() if isinstance(part, Record) else ()
            assert [Path(path).read_bytes() for path in result.staged] == list(media)

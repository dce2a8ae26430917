"""Records that travel together arrive as they were."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from convkit.convert.batch import apart, gather
from convkit.convert.journal import Written
from convkit.converters.base import Record, Reject
from convkit.schema import Row, Turn


def _row(row_id: str, images: Sequence[str]) -> Row:
    turns = [Turn(images=tuple(images), user="What?", assistant="That."), Turn(images=(), user="And?", assistant="No.")]
    return Row(id=row_id, source="s", conversations=tuple(turns))


@st.composite
def _parts(draw: st.DrawFn) -> list[tuple[Record, list[str]] | Reject]:
    parts: list[tuple[Record, list[str]] | Reject] = []
    for number in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            names = [f"{number}-{k}.png" for k in range(draw(st.integers(0, 2)))]
            rows = tuple(_row(f"{number}-{k}", names) for k in range(draw(st.integers(1, 2))))
            media = {name: name.encode() * (number + 1) for name in names}
            notes = draw(st.lists(st.sampled_from(["turned", "flattened"]), max_size=2))
            record = Record(draw(st.sampled_from(["train", "val"])), rows, media, number + 1, tuple(notes))
            parts.append((record, [f"/scratch/{name}" for name in names]))
        else:
            parts.append(Reject(f"item:{number}", "bad", "is bad", number + 1))
    return parts


def _alone(record: Record, staged: list[str]) -> tuple[Written, tuple[str, ...]]:
    written = Written(
        split=record.split,
        lines=tuple(row.to_line().decode() for row in record.rows),
        ids=tuple(row.id for row in record.rows),
        turns=2 * len(record.rows),
        images=len(record.media) * len(record.rows),
        media=tuple((path, len(content)) for path, content in record.media.items() if isinstance(content, bytes)),
        notes=record.notes,
        units=record.units,
    )
    return written, tuple(staged)


@given(_parts())
def test_what_was_gathered_comes_apart_into_its_records(parts: list[tuple[Record, list[str]] | Reject]) -> None:
    gathered = gather(parts)
    alone = [(part, ()) if isinstance(part, Reject) else _alone(*part) for part in parts]
    records = [(written, staged) for written, staged in alone if isinstance(written, Written)]
    again = apart(gathered)
    assert [(part.outcome, part.staged) for part in again] == alone
    assert apart(again) == again
    whole = [part.outcome for part in gathered if isinstance(part.outcome, Written)]
    assert len(whole) == len({written.split for written, _ in records})
    for outcome in whole:
        mine = [written for written, _ in records if written.split == outcome.split]
        assert outcome.lines == tuple(line for written in mine for line in written.lines)
        for count in ("units", "turns", "images"):
            assert getattr(outcome, count) == sum(getattr(written, count) for written in mine)

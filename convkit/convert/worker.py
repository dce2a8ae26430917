"""Convert one entry of a source into rows and media, or into the reason why that is impossible; runs in workers."""

import itertools
import os
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convkit.convert.journal import Entry, Outcome, Written
from convkit.converters.base import Converter, Exclude, Item, Record, Reject, schema_error
from convkit.errors import ItemError
from convkit.utils.files import size_of, write_or_link

MAX_NAME_BYTES = 255
"""The longest part of a path on all common file systems."""

SPLIT = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The split names that are allowed, since they become part of file names."""

FILES_PER_FOLDER = 1000
_serial = itertools.count()


@dataclass(frozen=True)
class StagedOutcome:
    """An outcome, and the scratch files of its media in their order."""

    outcome: Outcome
    staged: tuple[str, ...] = ()


def convert_entry(converter: Converter[Any], scratch: Path, entry: Entry) -> tuple[StagedOutcome, ...]:
    """Convert one entry and leave its media in the scratch folder.

    An error of the source becomes a `Reject`; an error of the output, such as a full disk, is raised.
    """
    if not isinstance(entry, Item):
        return (StagedOutcome(entry),)
    return tuple(
        _stage(part, scratch) if isinstance(part, Record) else StagedOutcome(part)
        for part in _convert_item(converter, entry)
    )


def _stage(record: Record, scratch: Path) -> StagedOutcome:
    """Write the media of a record into the scratch folder, and serialize its rows."""
    staged = []
    for content in record.media.values():
        number = next(_serial)
        # Creating or moving a file locks its folder, so each worker has folders of its own and soon starts a new one.
        staged.append(f"{scratch}/{os.getpid()}-{number // FILES_PER_FOLDER}/{number}")
        write_or_link(staged[-1], content)
    turns = [turn for row in record.rows for turn in row.conversations]
    written = Written(
        split=record.split,
        lines=tuple(row.to_line().decode() for row in record.rows),
        ids=tuple(row.id for row in record.rows),
        turns=len(turns),
        images=sum(len(turn.images) for turn in turns),
        media=tuple((path, size_of(content)) for path, content in record.media.items()),
        notes=tuple(record.notes),
        units=record.units,
    )
    return StagedOutcome(written, tuple(staged))


def _convert_item(converter: Converter[Any], item: Item) -> Iterator[Record | Reject]:
    """Yield the records and rejects of an item; their units always add up to the item's."""
    left = item.units
    rule = reason = ""
    try:
        result = converter.convert(item)
        for part in (result,) if isinstance(result, Record) else result:
            if isinstance(part, Record):
                _check_record(part)
            elif not isinstance(part, Reject):
                raise ItemError("converter-error", f"{type(part).__name__} is neither a record nor a reject")
            if part.units > left:
                raise ItemError("converter-error", f"the converter gives more {converter.unit}s than the item holds")
            left -= part.units
            yield part
    except ItemError as error:
        rule, reason = error.rule, error.reason
    except ValidationError as error:
        rule, reason = "invalid-row", schema_error(error)
    except OSError as error:
        rule, reason = "unreadable", f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a bug in a converter must not cost the other rows; it is named and counted
        frame = traceback.extract_tb(error.__traceback__)[-1]
        rule, reason = (
            "converter-error",
            f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})",
        )
    if left or rule:
        yield Reject(item.address, rule or "converter-error", reason or f"{left} units are unaccounted for", left)


def _check_record(record: Record) -> None:
    """Check what the schema does not cover and what could not be undone once it is written."""
    named = {image for row in record.rows for turn in row.conversations for image in turn.images}
    if unnamed := set(record.media) - named:
        # Media that no row names would be orphans with unchecked paths.
        raise ItemError("converter-error", f"the converter gives media that no row names: {min(unnamed)}")
    for content in record.media.values():
        if isinstance(content, Path):
            content.open("rb").close()  # an unreadable source must fail here, not when the output is written
    if not SPLIT.fullmatch(record.split):
        raise ItemError("converter-error", f"{record.split[:80]!r} is not a valid split name")
    if long := next((p for path in record.media for p in path.split("/") if len(p.encode()) > MAX_NAME_BYTES), None):
        raise ItemError("bad-name", f"the file name would be too long: {long[:40]}…")
    ids = [row.id for row in record.rows]
    if repeated := next((i for k, i in enumerate(ids) if i in ids[:k]), None):
        raise ItemError("duplicate-id", f"two of its rows have the row id {repeated}")


def reject_crashed(entry: Entry) -> tuple[StagedOutcome, ...]:
    """Return the outcome of an entry that killed its worker."""
    reason = "the process that decoded it died (a crash in a decoder, or out of memory)"
    return (StagedOutcome(Reject(address_of(entry), "crash", reason, entry.units)),)


def address_of(entry: Entry) -> str:
    """Return the position of an entry in the source, for messages."""
    return entry.reason if isinstance(entry, Exclude) else entry.address

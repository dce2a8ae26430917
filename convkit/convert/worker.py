"""What a worker does: one entry of a source becomes rows and media, or the reason why not."""

import itertools
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from convkit.convert.batch import Converted, gather
from convkit.convert.journal import Entry
from convkit.converters.base import Converter, Exclude, Item, Record, Reject
from convkit.errors import ItemError
from convkit.utils.files import put

MAX_NAME_BYTES = 255
"""Of one part of a path, on all common file systems."""


SPLIT = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a split may be called: it becomes a part of file names."""

_serial = itertools.count()
FILES_A_FOLDER = 1000


def process(converter: Converter[Any], scratch: Path, entry: Entry) -> tuple[Converted, ...]:
    """Convert one entry and leave its media in the scratch folder; runs in a worker.

    An error of the source becomes a `Reject`; an error of the output, such as a full disk, is raised.
    """
    if not isinstance(entry, Item):
        return (Converted(entry),)
    parts = _parts(converter, entry)
    return gather((part, _stage(part, scratch)) if isinstance(part, Record) else part for part in parts)


def _stage(record: Record, scratch: Path) -> list[str]:
    staged = []
    for content in record.media.values():
        number = next(_serial)
        # A folder is locked while a file is made in it or moved out of it: each worker has its own, and soon another.
        staged.append(f"{scratch}/{os.getpid()}-{number // FILES_A_FOLDER}/{number}")
        put(staged[-1], content)
    return staged


def _parts(converter: Converter[Any], item: Item) -> Iterator[Record | Reject]:
    """What the converter makes of an item; whatever goes wrong, all its units are accounted for."""
    left = item.units
    rule = reason = ""
    try:
        result = converter.convert(item)
        for part in (result,) if isinstance(result, Record) else result:
            if isinstance(part, Record):
                _check(part)
            elif not isinstance(part, Reject):
                raise ItemError("converter-error", f"{type(part).__name__} is neither a record nor a reject")
            if part.units > left:
                raise ItemError("converter-error", f"the converter gives more {converter.unit}s than the item holds")
            left -= part.units
            yield part
    except ItemError as error:
        rule, reason = error.rule, error.reason
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        rule, reason = (
            "invalid-row",
            f"the row would break the schema: {'/'.join(map(str, first['loc']))}: {first['msg']}",
        )
    except OSError as error:
        rule, reason = "unreadable", f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a converter's defect must not cost the other rows; it is named and counted
        frame = traceback.extract_tb(error.__traceback__)[-1]
        rule, reason = (
            "converter-error",
            f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})",
        )
    if left or rule:
        yield Reject(item.address, rule or "converter-error", reason or f"{left} units are unaccounted for", left)


def _check(record: Record) -> None:
    """What the schema cannot see and the writer could not take back."""
    named = {image for row in record.rows for turn in row.conversations for image in turn.images}
    if unnamed := set(record.media) - named:
        # Media that no row names would be orphans, and their paths would be unchecked.
        raise ItemError("converter-error", f"the converter gives media that no row names: {min(unnamed)}")
    for content in record.media.values():
        if isinstance(content, Path):
            content.open("rb").close()  # an error of the source shows here, not when the output is written
    if not SPLIT.fullmatch(record.split):
        raise ItemError("converter-error", f"{record.split[:80]!r} is no name for a split")
    if long := next((p for path in record.media for p in path.split("/") if len(p.encode()) > MAX_NAME_BYTES), None):
        raise ItemError("bad-name", f"the file name would be too long: {long[:40]}…")
    ids = [row.id for row in record.rows]
    if twice := next((i for k, i in enumerate(ids) if i in ids[:k]), None):
        raise ItemError("duplicate-id", f"two of its rows have the row id {twice}")


def crashed(entry: Entry) -> tuple[Converted, ...]:
    """The outcome of an entry that killed its worker."""
    reason = "the process that decoded it died (a crash in a decoder, or out of memory)"
    return (Converted(Reject(address_of(entry), "crash", reason, entry.units)),)


def address_of(entry: Entry) -> str:
    """Where an entry stands in the source, for messages."""
    return entry.reason if isinstance(entry, Exclude) else entry.address

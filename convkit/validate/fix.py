"""Mends what can be mended without asking: a table of fixers by rule, and the rewriting of row files.

A fixer changes no value of a row but the one that its rule is about. Only lines that a finding names are touched; the
new version replaces the file in one step, so a reader sees the old one or the new one.

The files of a finished dataset directory are not mended: their manifest says which conversion wrote these very bytes,
and to change both would keep the digests and lose their meaning.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple, cast

from pydantic import ValidationError

from convkit import layout
from convkit.dataset import MAX_LINE_BYTES, open_rows
from convkit.findings import Finding
from convkit.rules import file as file_rules
from convkit.rules import texts as text_rules
from convkit.rules.base import Rule
from convkit.schema import Row
from convkit.utils.files import AtomicFile


class Fixer(NamedTuple):
    """How the findings of a rule are mended."""

    rule: Rule
    done: str
    """What is said of a line that was mended."""
    mend: Callable[[bytes], bytes]
    """The new line, each with its line end; empty to remove it, the same where there is nothing to mend."""


def _without_blank(raw: bytes) -> bytes:
    return b"" if file_rules.is_blank(raw) else raw


def _without_marks(raw: bytes) -> bytes:
    rest = file_rules.without_marks(raw)
    return raw if rest is raw else _without_blank(rest)


def _with_end(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\n") else _without_blank(raw + b"\n")


_ASSISTANT = re.compile(rb'("assistant"[ \t\r]*:[ \t\r]*)("(?:[^"\\]|\\.)*+")')


def _with_stripped_answers(raw: bytes) -> bytes:
    try:
        row = Row.model_validate_json(file_rules.without_marks(raw))
    except ValidationError:
        return raw
    turns = [
        turn.model_copy(update={"assistant": turn.assistant.strip() or turn.assistant}) if turn.assistant else turn
        for turn in row.conversations
    ]
    mended = _ASSISTANT.sub(lambda match: match[1] + _stripped(match[2]), raw)
    # Metadata may have a key of this name, whose value is not ours to change.
    wanted = row.model_copy(update={"conversations": tuple(turns)})
    return mended if Row.model_validate_json(file_rules.without_marks(mended)) == wanted else raw


def _stripped(spelt: bytes) -> bytes:
    """A string as JSON spells it; the same bytes where there is nothing to strip, or nothing would be left."""
    text: str = json.loads(spelt)
    stripped = text.strip()
    return spelt if stripped in ("", text) else json.dumps(stripped, ensure_ascii=False).encode()


FIXERS = {
    fixer.rule.code: fixer
    for fixer in (
        Fixer(file_rules.BYTE_ORDER_MARK_RULE, "byte order mark removed", _without_marks),
        Fixer(file_rules.BLANK_LINE, "line removed", _without_blank),
        Fixer(file_rules.NO_LAST_LINE_END, "line feed added", _with_end),
        Fixer(text_rules.PADDED_ANSWER, "answer stripped", _with_stripped_answers),
    )
}
"""By code. A rule that is not here has findings that ask for a decision."""


class Change(NamedTuple):
    """One line that was mended; its number is that of the old version."""

    file: Path
    line: int
    fixer: Fixer

    def __str__(self) -> str:
        rule = self.fixer.rule
        return f"{self.file}:{self.line}: {rule.code} {rule.slug}: {self.fixer.done}"


class Fixed(NamedTuple):
    """What came of mending."""

    changes: list[Change]
    refused: list[str]
    """Files that have something to mend and were left alone, with the reason and the remedy."""


def fix(findings: Iterable[Finding]) -> Fixed:
    """Mend the files that findings are about, wherever there is a fixer.

    Raises:
        OSError: a file cannot be read or written; it is as it was, the ones before it are mended.
    """
    wanted: dict[Path, dict[int, list[Fixer]]] = {}
    for finding in findings:
        if finding.line and (fixer := FIXERS.get(finding.code)):
            fixers = wanted.setdefault(Path(finding.file), {}).setdefault(finding.line, [])
            if fixer not in fixers:
                fixers.append(fixer)
    fixed = Fixed([], [])
    for path, lines in wanted.items():
        changes = list(_changes(path, lines))
        if not changes:
            continue
        if reason := _refusal(path):
            fixed.refused.append(f"not mended: {path}: {reason}")
        else:
            _rewrite(path, lines)
            fixed.changes.extend(changes)
    return fixed


def mark_fixable(findings: Iterable[Finding]) -> list[Finding]:
    """Set `fixable` on the findings that `fix` can fix."""

    @cache
    def is_fixable(file: str) -> bool:
        return Path(file).is_file() and not _refusal(Path(file))

    return [
        finding.model_copy(update={"fixable": True})
        if finding.line and finding.code in FIXERS and is_fixable(finding.file)
        else finding
        for finding in findings
    ]


def _refusal(path: Path) -> str | None:
    if path.is_symlink():
        return "it is a symbolic link. Give the file that it leads to."
    if path.suffix in layout.COMPRESSED:
        return "it is compressed. Decompress it, mend it, and compress it again."
    if (path.parent / layout.MANIFEST).exists():
        return (
            f"{layout.MANIFEST} beside it says which conversion wrote these bytes. Convert the source again, or copy "
            "the row file and images/ to a folder without a manifest and mend it there."
        )
    return None


def _changes(path: Path, wanted: dict[int, list[Fixer]]) -> Iterator[Change]:
    if not path.is_file():  # its name is not UTF-8, so the report could not spell it
        return
    with open_rows(path) as opened, io.BufferedReader(cast(io.RawIOBase, opened)) as file:
        for number, raw, whole in _parts(file):
            for fixer in wanted.get(number, ()) if whole else ():
                mended = fixer.mend(raw)
                if mended != raw:
                    yield Change(path, number, fixer)
                raw = mended


def _rewrite(path: Path, wanted: dict[int, list[Fixer]]) -> None:
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch,
        path.open("rb") as old,
    ):
        new = AtomicFile(path, Path(scratch), mode=path.stat().st_mode)
        try:
            for number, raw, whole in _parts(old):
                for fixer in wanted.get(number, ()) if whole else ():
                    raw = fixer.mend(raw)
                new.write(raw)
            new.commit()
        finally:
            new.close()


def _parts(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Line numbers and lines with their ends; overlong lines come in parts, which are not whole."""
    number, begun = 1, False
    while raw := file.readline(MAX_LINE_BYTES + 1):
        ended = raw.endswith(b"\n")
        yield number, raw, not begun and (ended or len(raw) <= MAX_LINE_BYTES)
        number += ended
        begun = not ended

"""Fix findings that need no decision: a table of fixers by rule, and the rewriting of row files.

A fixer changes only the value that its rule is about, and only in lines that a finding names. The new version replaces
the file in one step, so a reader sees the old file or the new one.

Files of a complete dataset directory are not fixed: their manifest holds the digests of what a conversion wrote.
Changing both would keep the digests consistent, but they would no longer belong to any conversion.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple, cast

from pydantic import ValidationError

from convkit import layout
from convkit.dataset import MAX_LINE_BYTES
from convkit.findings import Finding
from convkit.rules import file as file_rules
from convkit.rules import texts as text_rules
from convkit.rules.base import Rule
from convkit.schema import Row
from convkit.utils.compressed import open_rows
from convkit.utils.files import AtomicFile


class Fixer(NamedTuple):
    """The automatic fix for the findings of a rule."""

    rule: Rule
    description: str
    """The change, as listed for each fixed line."""
    apply: Callable[[bytes], bytes]
    """Map a line to the fixed line, both with line end: empty removes it, the same bytes if nothing is to fix."""


def _remove_blank(raw: bytes) -> bytes:
    return b"" if file_rules.is_blank(raw) else raw


def _remove_marks(raw: bytes) -> bytes:
    rest = file_rules.without_marks(raw)
    return raw if rest is raw else _remove_blank(rest)


def _add_line_end(raw: bytes) -> bytes:
    return raw if raw.endswith(b"\n") else _remove_blank(raw + b"\n")


def _strip_answers(raw: bytes) -> bytes:
    line = file_rules.without_marks(raw)
    try:
        row = Row.model_validate_json(line)
    except ValidationError:
        return raw
    text = line.decode()
    for start, end in reversed(_answer_spans(text)):
        text = text[:start] + _strip_json_string(text[start:end]) + text[end:]
    turns = [
        turn.model_copy(update={"assistant": turn.assistant.strip() or turn.assistant}) if turn.assistant else turn
        for turn in row.conversations
    ]
    fixed = text.encode()
    expected = row.model_copy(update={"conversations": tuple(turns)})
    return raw.removesuffix(line) + fixed if Row.model_validate_json(fixed) == expected else raw


_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[ \t\r\n:,]*")


def _answer_spans(line: str) -> list[tuple[int, int]]:
    """Return start and end of each assistant text of a valid row; a key `assistant` in metadata is not one."""
    conversations = dict(_members(line, line.index("{")))["conversations"]
    turns = [dict(_members(line, start)) for start, _ in _values(line, conversations[0])]
    return [turn["assistant"] for turn in turns if "assistant" in turn]


def _members(text: str, start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield each key of the JSON object that begins at `start`, with start and end of its value."""
    spans = _values(text, start)
    for key_start, key_end in spans:
        yield json.loads(text[key_start:key_end]), next(spans)


def _values(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of everything in the JSON array or object that begins at `start`, keys included."""
    at = _skip(text, start + 1)
    while text[at] not in "]}":
        end = _DECODER.raw_decode(text, at)[1]
        yield at, end
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    """Return the position of the next key, value or closing bracket."""
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _strip_json_string(encoded: str) -> str:
    """Strip a JSON string; return the same text if nothing would change, nothing would be left, or it is null."""
    text: str | None = json.loads(encoded)
    stripped = (text or "").strip()
    return encoded if stripped in ("", text) else json.dumps(stripped, ensure_ascii=False)


FIXERS = {
    fixer.rule.code: fixer
    for fixer in (
        Fixer(file_rules.BYTE_ORDER_MARK_RULE, "byte order mark removed", _remove_marks),
        Fixer(file_rules.BLANK_LINE, "line removed", _remove_blank),
        Fixer(file_rules.NO_LAST_LINE_END, "line feed added", _add_line_end),
        Fixer(text_rules.PADDED_ANSWER, "answer stripped", _strip_answers),
    )
}
"""Fixers by rule code. Findings of other rules need a decision."""


class Change(NamedTuple):
    """A line that was fixed, with its number in the old version."""

    file: Path
    line: int
    fixer: Fixer

    def __str__(self) -> str:
        rule = self.fixer.rule
        return f"{self.file}:{self.line}: {rule.code} {rule.slug}: {self.fixer.description}"


class FixResult(NamedTuple):
    """The changes that were made, and the files that were skipped."""

    changes: list[Change]
    skipped: list[str]
    """Files that could be fixed but were left unchanged, with the reason and the remedy."""


def fix_files(findings: Iterable[Finding]) -> FixResult:
    """Fix all findings that have a fixer.

    Raises:
        OSError: a file cannot be read or written. It is unchanged; files before it are fixed.
    """
    fixers_by_file: dict[Path, dict[int, list[Fixer]]] = {}
    for finding in findings:
        if finding.line and (fixer := FIXERS.get(finding.code)):
            fixers = fixers_by_file.setdefault(Path(finding.file), {}).setdefault(finding.line, [])
            if fixer not in fixers:
                fixers.append(fixer)
    result = FixResult([], [])
    for path, lines in fixers_by_file.items():
        changes = list(_changes(path, lines))
        if not changes:
            continue
        if reason := _reason_to_skip(path):
            result.skipped.append(f"not fixed: {path}: {reason}")
        else:
            _rewrite(path, lines)
            result.changes.extend(changes)
    return result


def can_fix(file: str) -> bool:
    """Return whether `fix_files` changes a file, given a finding that has a fixer."""
    return Path(file).is_file() and not _reason_to_skip(Path(file))


def _reason_to_skip(path: Path) -> str | None:
    if path.is_symlink():
        return "it is a symbolic link. Pass the file that it points to."
    if path.suffix in layout.COMPRESSED:
        return "it is compressed. Decompress it, fix it, and compress it again."
    if (path.parent / layout.MANIFEST).exists():
        return (
            f"{layout.MANIFEST} beside it holds the digest of what a conversion wrote. Convert the source again, or "
            "copy the row file and images/ to a folder without a manifest and fix it there."
        )
    return None


def _changes(path: Path, fixers: dict[int, list[Fixer]]) -> Iterator[Change]:
    if not path.is_file():  # a finding cannot hold a file name that is not UTF-8
        return
    with open_rows(path) as opened, io.BufferedReader(cast(io.RawIOBase, opened)) as file:
        for number, raw, complete in _read_parts(file):
            for fixer in fixers.get(number, ()) if complete else ():
                fixed = fixer.apply(raw)
                if fixed != raw:
                    yield Change(path, number, fixer)
                raw = fixed


def _rewrite(path: Path, fixers: dict[int, list[Fixer]]) -> None:
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch,
        path.open("rb") as old,
    ):
        new = AtomicFile(path, Path(scratch), mode=path.stat().st_mode)
        try:
            for number, raw, complete in _read_parts(old):
                for fixer in fixers.get(number, ()) if complete else ():
                    raw = fixer.apply(raw)
                new.write(raw)
            new.commit()
        finally:
            new.close()


def _read_parts(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield line number, bytes, and whether the line is complete; overlong lines come in incomplete parts."""
    number, in_line = 1, False
    while raw := file.readline(MAX_LINE_BYTES + 1):
        ended = raw.endswith(b"\n")
        yield number, raw, not in_line and (ended or len(raw) <= MAX_LINE_BYTES)
        number += ended
        in_line = not ended

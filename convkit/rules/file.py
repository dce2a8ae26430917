"""CK0xx: the bytes and lines of a row file, before they are parsed as rows."""

import json
import re

from convkit.findings import Severity
from convkit.rules.base import Problem, Rule

_MAX_KEY = 80
"""Characters of a key that a message quotes."""
_WHITE_SPACE = b" \t\r\n"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

NOT_UTF8 = Rule(
    code="CK001",
    slug="not-utf8",
    severity=Severity.ERROR,
    summary="lines that are not valid UTF-8",
    why="JSON Lines files are UTF-8 by definition. Any other encoding stops the reader or produces wrong characters.",
    fix="Convert the file to UTF-8, such as with `iconv -f ENCODING -t UTF-8`.",
)


def not_utf8(raw: bytes, unterminated: bool = False) -> Problem | None:
    """Return CK001 with the first invalid byte; CK009 if the file ends within a character."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        if unterminated and error.reason == "unexpected end of data":
            return Problem(TRUNCATED_LINE, "the file ends in the middle of a character")
        return Problem(NOT_UTF8, f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not valid UTF-8")
    return None


INVALID_JSON = Rule(
    code="CK002",
    slug="invalid-json",
    severity=Severity.ERROR,
    summary="lines that are not valid JSON",
    why="A JSON reader fails at this line, often hours into a run.",
    fix="Write one JSON object per line with a JSON library. For a JSON array: `jq -c '.[]' FILE`.",
    instead='{"id":"x","source":"pets","conversations":[{"images":[],"user":"What is it?","assistant":"A cat."}]}',
)
_PARSER_POSITION = re.compile(r" at line \d+ column (\d+)$")


def invalid_json(raw: bytes, line: int, message: str, unterminated: bool = False) -> Problem:
    """Return CK002; CK009 if the last line is cut short.

    Args:
        message: the parser's message, which ends with a position in bytes.
        unterminated: the line is the last one and has no newline.
    """
    position = _PARSER_POSITION.search(message)
    offset = max(int(position[1]) - 1, 0) if position else 0
    reason = _PARSER_POSITION.sub("", message)
    where = f"line {line}, column {_column(raw, offset)}"
    if unterminated and reason.startswith("EOF "):
        return Problem(TRUNCATED_LINE, f"the file ends in the middle of a row, at {where}")
    hint = "; the line contains NUL bytes, so the file may be UTF-16" if b"\0" in raw else ""
    return Problem(INVALID_JSON, f"invalid JSON at {where}: {reason}{hint}")


def _column(raw: bytes, offset: int) -> int:
    return len(raw[:offset].decode(errors="replace")) + 1


OVERLONG_LINE = Rule(
    code="CK003",
    slug="overlong-line",
    severity=Severity.ERROR,
    summary="lines longer than 16 MiB",
    why="A row holds text and file paths. A line of this length contains embedded media or several rows, and reading "
    "it takes several times its size in memory.",
    fix="Store media as files in images/ and reference them by path. Write one row per line.",
)


def overlong(max_bytes: int) -> Problem:
    """Return CK003 for a line that is longer than the limit."""
    return Problem(OVERLONG_LINE, f"the line is longer than {max_bytes:,} bytes")


BLANK_LINE = Rule(
    code="CK004",
    slug="blank-line",
    severity=Severity.ERROR,
    summary="empty or whitespace-only lines",
    why="Readers disagree about blank lines: some skip them, some fail, and line numbers differ between them.",
    fix="Remove the line.",
    fixable=True,
)


def is_blank(raw: bytes) -> bool:
    """Return true for a line that contains only JSON whitespace."""
    return not raw.strip(_WHITE_SPACE)


def blank() -> Problem:
    """Return CK004 for a blank line."""
    return Problem(BLANK_LINE, "the line is blank")


EMPTY_FILE = Rule(
    code="CK005",
    slug="empty-file",
    severity=Severity.ERROR,
    summary="row files without rows",
    why="There is nothing to train on or to evaluate in this split. Usually a filter or a path was wrong during "
    "conversion.",
    fix="Convert the source again, or delete the file if the split is not needed.",
)


def empty_file() -> Problem:
    """Return CK005 for a row file without rows."""
    return Problem(EMPTY_FILE, "the file has no rows")


BYTE_ORDER_MARK_RULE = Rule(
    code="CK006",
    slug="byte-order-mark",
    severity=Severity.ERROR,
    summary="lines that start with a UTF-8 byte order mark (BOM)",
    why="JSON does not allow a BOM. Most readers fail at the first line; others treat it as part of the first key.",
    fix=r"Remove the first three bytes of the line; for the first line: `sed -i '1s/^\xEF\xBB\xBF//' FILE`.",
    fixable=True,
)


def byte_order_mark(raw: bytes) -> Problem | None:
    """Return CK006 for a line that starts with a byte order mark."""
    if raw.startswith(BYTE_ORDER_MARK):
        return Problem(BYTE_ORDER_MARK_RULE, "the line starts with a byte order mark")
    return None


def without_marks(raw: bytes) -> bytes:
    """Strip all byte order marks from the start of a line."""
    while raw.startswith(BYTE_ORDER_MARK):
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    return raw


DUPLICATE_KEY = Rule(
    code="CK007",
    slug="duplicate-key",
    severity=Severity.ERROR,
    summary="JSON objects with the same key twice",
    why="Most readers keep the last value and silently drop the others, whichever of them is correct.",
    fix="Keep the correct value and remove the others.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is 1?","assistant":"A cat."}],'
    '"system":"x"}',
)


def duplicate_key(raw: bytes, line: int) -> Problem | None:
    """Return CK007 with the first repeated key of a line that is valid JSON."""
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)

    json.loads(raw, object_pairs_hook=collect, parse_int=str, parse_float=str)
    if not repeated:
        return None
    key = repr(repeated[0] if len(repeated[0]) <= _MAX_KEY else f"{repeated[0][:_MAX_KEY]}…")
    return Problem(DUPLICATE_KEY, f"an object of line {line} has the key {key} twice")


def most_keys(raw: bytes) -> int:
    """Return an upper bound for the number of keys in JSON text, by counting colons that may follow a key.

    A key is followed by a colon, with a quotation mark or whitespace before it. Few colons inside strings look so.
    """
    import numpy as np

    characters = np.frombuffer(raw, np.uint8)
    before = characters[np.flatnonzero(characters[1:] == ord(":"))]
    return int(np.count_nonzero((before == ord('"')) | (before <= ord(" "))))


NOT_A_NUMBER = Rule(
    code="CK008",
    slug="not-a-number",
    severity=Severity.ERROR,
    summary="numbers that are NaN or infinite",
    why="Python reads and writes NaN and Infinity, but JSON does not allow them. Other readers fail.",
    fix="Remove the key, or write a finite number.",
    instead='{"id":"n","source":"pets","conversations":[{"images":[],"user":"What is n?","assistant":"A cat."}],'
    '"metadata":{"score":0.5}}',
)
# Whole strings are matched first, so that only text outside of strings is searched.
_NON_FINITE = re.compile(rb'"(?:[^"\\]|\\.)*+"|(NaN|-?Infinity)', re.DOTALL)


def not_a_number(raw: bytes, line: int) -> Problem | None:
    """Return CK008 for the first NaN or Infinity.

    The line must be valid JSON otherwise: a string without end would take quadratic time.
    """
    for match in _NON_FINITE.finditer(raw):
        if match[1]:
            where = f"line {line}, column {_column(raw, match.start())}"
            return Problem(NOT_A_NUMBER, f"invalid JSON at {where}: {match[1].decode()} is not a JSON number")
    return None


TRUNCATED_LINE = Rule(
    code="CK009",
    slug="truncated-last-line",
    severity=Severity.ERROR,
    summary="files that end in the middle of a row",
    why="A copy or a writer was interrupted, so later rows are missing as well.",
    fix="Copy the file or convert its source again. Deleting only the last line would hide that rows are missing.",
)
NO_LAST_LINE_END = Rule(
    code="CK010",
    slug="no-last-line-end",
    severity=Severity.WARNING,
    summary="files without a newline after the last line",
    why="Appending to the file joins the new row to the last one and breaks both. The file may also be incomplete.",
    fix="Add a newline at the end of the file.",
    fixable=True,
)


def no_last_line_end() -> Problem:
    """Return CK010 for a last line without a newline."""
    return Problem(NO_LAST_LINE_END, "the last line has no newline")


RULES = (
    NOT_UTF8,
    INVALID_JSON,
    OVERLONG_LINE,
    BLANK_LINE,
    EMPTY_FILE,
    BYTE_ORDER_MARK_RULE,
    DUPLICATE_KEY,
    NOT_A_NUMBER,
    TRUNCATED_LINE,
    NO_LAST_LINE_END,
)

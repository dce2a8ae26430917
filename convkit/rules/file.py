"""CK0xx: the file and its lines, before anything is known of rows."""

import re

from convkit.findings import Severity
from convkit.rules.base import Problem, Rule

NOT_UTF8 = Rule(
    code="CK001",
    slug="not-utf8",
    severity=Severity.ERROR,
    summary="A line is not UTF-8.",
    why="JSON lines are UTF-8 by definition; another encoding stops the reader, or turns text into wrong characters.",
    fix="Convert the file: iconv -f ENCODING -t UTF-8.",
)
INVALID_JSON = Rule(
    code="CK002",
    slug="invalid-json",
    severity=Severity.ERROR,
    summary="A line is not JSON.",
    why="A reader stops at this line, often hours into a run. A last line that is cut short is the trace of a copy or "
    "a writer that was interrupted.",
    fix="Write one JSON object a line with a JSON library; if the file was cut short, copy or convert it again.",
)
OVERLONG_LINE = Rule(
    code="CK003",
    slug="overlong-line",
    severity=Severity.ERROR,
    summary="A line is longer than 16 MiB.",
    why="A row holds text and paths. A line of this length holds embedded media, or the line ends were lost; it takes "
    "a multiple of its length in memory wherever it is read.",
    fix="Store media as files in images/ and name them in the row; write one row a line.",
)
BLANK_LINE = Rule(
    code="CK004",
    slug="blank-line",
    severity=Severity.ERROR,
    summary="A line is empty or white space.",
    why="Readers disagree: some skip it, some stop, and those that count lines number the rows differently.",
    fix="Remove the line.",
)
EMPTY_FILE = Rule(
    code="CK005",
    slug="empty-file",
    severity=Severity.ERROR,
    summary="A row file holds no row.",
    why="Training or evaluation on this split has nothing to do; mostly a filter or a path was wrong when it was made.",
    fix="Convert the source again, or remove the file if the split is not wanted.",
)
RULES = (NOT_UTF8, INVALID_JSON, OVERLONG_LINE, BLANK_LINE, EMPTY_FILE)

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITE_SPACE = b" \t\r\n"
# Outside of strings, of which whole ones are matched first.
_NOT_A_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*+"|(NaN|-?Infinity)', re.DOTALL)
_PARSER_POSITION = re.compile(r" at line \d+ column (\d+)$")


def is_blank(raw: bytes) -> bool:
    """Whether a line has nothing but what JSON calls white space."""
    return not raw.strip(_WHITE_SPACE)


def not_utf8(raw: bytes) -> Problem | None:
    """CK001, with the first byte that is wrong."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return Problem(NOT_UTF8, f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8")
    return None


def not_a_number(raw: bytes, line: int) -> Problem | None:
    """CK002 for NaN and Infinity, which Python writes and reads, but which are not JSON and stop other readers.

    The line must be sound JSON otherwise: the search takes quadratic time where a string has no end.
    """
    for match in _NOT_A_NUMBER.finditer(raw):
        if match[1]:
            return _invalid_json(raw, line, match.start(), f"{match[1].decode()} is not a JSON number")
    return None


def invalid_json(raw: bytes, line: int, message: str) -> Problem:
    """CK002 from the parser's message, which ends in a position in bytes."""
    position = _PARSER_POSITION.search(message)
    offset = max(int(position[1]) - 1, 0) if position else 0
    reason = _PARSER_POSITION.sub("", message)
    if raw.startswith(_BYTE_ORDER_MARK):
        reason = "the line begins with a byte order mark"
    return _invalid_json(raw, line, offset, reason)


def _invalid_json(raw: bytes, line: int, offset: int, reason: str) -> Problem:
    column = len(raw[:offset].decode(errors="replace")) + 1
    return Problem(INVALID_JSON, f"not JSON at line {line}, column {column}: {reason}")

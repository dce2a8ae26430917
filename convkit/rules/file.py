"""CK0xx: the file and its lines, before anything is known of rows."""

import json
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
BYTE_ORDER_MARK_RULE = Rule(
    code="CK006",
    slug="byte-order-mark",
    severity=Severity.ERROR,
    summary="A line begins with a byte order mark.",
    why="JSON does not allow one; most readers stop at the first line, others take it for a part of the first key.",
    fix="Remove the first three bytes of the line: sed -i '1s/^\\xEF\\xBB\\xBF//' FILE for the first line.",
)
DUPLICATE_KEY = Rule(
    code="CK007",
    slug="duplicate-key",
    severity=Severity.ERROR,
    summary="An object has the same key twice.",
    why="Most readers keep the last value and drop the others without a word; which one is meant, nobody knows.",
    fix="Keep the value that is meant, and remove the other.",
)
NOT_A_NUMBER = Rule(
    code="CK008",
    slug="not-a-number",
    severity=Severity.ERROR,
    summary="A number is NaN or infinite.",
    why="Python writes and reads it, but it is not JSON: other readers stop there, and some write null instead.",
    fix="Leave the key out where there is no number, or give the number.",
)
TRUNCATED_LINE = Rule(
    code="CK009",
    slug="truncated-last-line",
    severity=Severity.ERROR,
    summary="The file ends in the middle of a row.",
    why="It is the trace of a copy or a writer that was interrupted: the rows that should follow are missing as well.",
    fix="Copy the file or convert its source again; to remove the last line alone would hide what is lost.",
)
NO_LAST_LINE_END = Rule(
    code="CK010",
    slug="no-last-line-end",
    severity=Severity.WARNING,
    summary="The last line has no line end.",
    why="Whatever is appended to the file is joined to its last row, which spoils both; and nothing tells that the "
    "file is whole.",
    fix="Add a line feed at the end of the file.",
)
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

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_SHOWN = 80
_WHITE_SPACE = b" \t\r\n"
# Outside of strings, of which whole ones are matched first.
_NUMBERS_THAT_ARE_NONE = re.compile(rb'"(?:[^"\\]|\\.)*+"|(NaN|-?Infinity)', re.DOTALL)
_PARSER_POSITION = re.compile(r" at line \d+ column (\d+)$")


def is_blank(raw: bytes) -> bool:
    """Whether a line has nothing but what JSON calls white space."""
    return not raw.strip(_WHITE_SPACE)


def blank() -> Problem:
    """CK004."""
    return Problem(BLANK_LINE, "the line is blank")


def overlong(max_bytes: int) -> Problem:
    """CK003."""
    return Problem(OVERLONG_LINE, f"the line is longer than {max_bytes:,} bytes")


def no_last_line_end() -> Problem:
    """CK010."""
    return Problem(NO_LAST_LINE_END, "the last line has no line end")


def without_marks(raw: bytes) -> bytes:
    """A line without the byte order marks that it begins with."""
    while raw.startswith(BYTE_ORDER_MARK):
        raw = raw.removeprefix(BYTE_ORDER_MARK)
    return raw


def byte_order_mark(raw: bytes) -> Problem | None:
    """CK006."""
    if raw.startswith(BYTE_ORDER_MARK):
        return Problem(BYTE_ORDER_MARK_RULE, "the line begins with a byte order mark")
    return None


def not_utf8(raw: bytes, unended: bool = False) -> Problem | None:
    """CK001, with the first byte that is wrong; CK009 where an unended line stops within a character."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        if unended and error.reason == "unexpected end of data":
            return Problem(TRUNCATED_LINE, "the file ends in the middle of a character")
        return Problem(NOT_UTF8, f"byte {error.start + 1} of the line, 0x{raw[error.start]:02x}, is not UTF-8")
    return None


def not_a_number(raw: bytes, line: int) -> Problem | None:
    """CK008 for NaN and Infinity, which Python writes and reads, but which are not JSON and stop other readers.

    The line must be sound JSON otherwise: the search takes quadratic time where a string has no end.
    """
    for match in _NUMBERS_THAT_ARE_NONE.finditer(raw):
        if match[1]:
            where = f"line {line}, column {_column(raw, match.start())}"
            return Problem(NOT_A_NUMBER, f"not JSON at {where}: {match[1].decode()} is not a JSON number")
    return None


def invalid_json(raw: bytes, line: int, message: str, unended: bool = False) -> Problem:
    """CK002 from the parser's message, which ends in a position in bytes; CK009 where an unended line is cut short."""
    position = _PARSER_POSITION.search(message)
    offset = max(int(position[1]) - 1, 0) if position else 0
    reason = _PARSER_POSITION.sub("", message)
    where = f"line {line}, column {_column(raw, offset)}"
    if unended and reason.startswith("EOF "):
        return Problem(TRUNCATED_LINE, f"the file ends in the middle of a row, at {where}")
    return Problem(INVALID_JSON, f"not JSON at {where}: {reason}")


def _column(raw: bytes, offset: int) -> int:
    return len(raw[:offset].decode(errors="replace")) + 1


def most_keys(raw: bytes) -> int:
    """At least as many as the keys that JSON text spells: each is followed by a colon that no string holds.

    Before such a colon stands a quotation mark or white space; so do few of those within strings.
    """
    import numpy as np

    characters = np.frombuffer(raw, np.uint8)
    before = characters[np.flatnonzero(characters[1:] == ord(":"))]
    return int(np.count_nonzero((before == ord('"')) | (before <= ord(" "))))


def duplicate_key(raw: bytes, line: int) -> Problem | None:
    """CK007 with the first key that is spelt twice in one object of a line that is sound JSON."""
    twice: list[str] = []

    def see(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                twice.append(key)
            seen.add(key)

    json.loads(raw, object_pairs_hook=see, parse_int=str, parse_float=str)
    if not twice:
        return None
    name = repr(twice[0] if len(twice[0]) <= _MAX_SHOWN else f"{twice[0][:_MAX_SHOWN]}…")
    return Problem(DUPLICATE_KEY, f"an object of line {line} has the key {name} twice")

"""CK1xx, part 1: keys and values of a row. The rules about its texts are in `convkit.rules.texts`.

`convkit.schema` decides if a row is valid; the functions here report everything that is wrong with an invalid one.
"""

from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from convkit.findings import Finding, Severity
from convkit.rules import file, media
from convkit.rules.base import Check, DatasetFiles, Location, Problem, RowFacts, Rule
from convkit.schema import IMAGE_MARKER, Row, Turn

_MAX_VALUE = 80
"""Characters of a key or value that a message quotes."""


def explain(
    raw: bytes, line: int, error: ValidationError, unterminated: bool = False
) -> tuple[str | None, list[Problem]]:
    """Return the id of an invalid row, if it has a readable one, and all its problems.

    The checks depend on each other: bytes that are not UTF-8 have no JSON errors, and invalid JSON has no keys.

    Args:
        error: raised by the row schema for this line.
        unterminated: the line is the last one and has no newline.
    """
    if problem := file.not_utf8(raw, unterminated):
        return None, [problem]
    try:
        document = from_json(raw)
    except ValueError as reason:
        return None, [file.invalid_json(raw, line, str(reason), unterminated)]
    repeated = file.duplicate_key(raw, line)
    if problem := file.not_a_number(raw, line):
        return _row_id(document), [problem, *([repeated] if repeated else [])]
    return _row_id(document), [
        *([repeated] if repeated else []),
        *_schema_problems(error),
        *_marker_count(document),
        *_assistant_missing(document),
    ]


def _row_id(document: Any) -> str | None:
    row_id = document.get("id") if isinstance(document, dict) else None
    return row_id if isinstance(row_id, str) else None


def _turns(document: Any) -> list[Any]:
    turns = document.get("conversations") if isinstance(document, dict) else None
    return turns if isinstance(turns, list) else []


SCHEMA_VIOLATION = Rule(
    code="CK101",
    slug="schema-violation",
    severity=Severity.ERROR,
    summary="missing keys, unknown keys and values of the wrong type",
    why="Readers fail or guess. The data under a misspelled key is silently ignored.",
    fix="Follow the row schema, which `convkit schema row` prints. Put data without a key of its own into `metadata`.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is it?","assistant":"x"}]}',
)
# CK102 and CK103 have checks of their own, because the schema reports them only if everything else is valid.
_CHECKED_SEPARATELY = {"marker_count", "assistant_missing"}
_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
_TYPES = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _schema_problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        if detail["type"] not in _CHECKED_SEPARATELY:
            yield _schema_problem(detail)


def _schema_problem(detail: ErrorDetails) -> Problem:
    loc = detail["loc"]
    if detail["type"] == "string_pattern_mismatch" and "images" in loc:
        return Problem(media.UNSAFE_PATH, media.unsafe_path(_quoted(detail["input"])), _pointer(loc))
    return Problem(SCHEMA_VIOLATION, _message(detail), _pointer(loc))


def _message(detail: ErrorDetails) -> str:
    kind, loc, value = detail["type"], detail["loc"], detail["input"]
    name = _name(loc)
    if kind == "extra_forbidden":
        return f"unknown key {_quoted(loc[-1])}{_suggestion(str(loc[-1])[:_MAX_VALUE].lower(), len(loc) == 1)}"
    if kind == "missing":
        return f"the required key {_quoted(loc[-1])} is missing"
    if kind in _EXPECTED:
        null = "; leave out keys that are not used" if value is None else ""
        return f"{name} must be {_EXPECTED[kind]}, not {_TYPES.get(type(value), 'null')}{null}"
    if kind in ("string_too_short", "too_short"):
        return f"{name} is empty"
    if kind == "string_too_long":
        return f"{name} has {len(value):,} characters, the limit is {detail['ctx']['max_length']:,}"
    return f"{name}: {detail['msg']}"


def _name(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return "the row"
    return f"an item of {loc[-2]}" if isinstance(loc[-1], int) and len(loc) > 1 else str(loc[-1])


@lru_cache(1000)  # an error in one row usually repeats in all rows
def _suggestion(key: str, of_row: bool) -> str:
    known = list(Row.model_fields if of_row else Turn.model_fields)
    close = get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…")


def _pointer(loc: tuple[int | str, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


MARKER_COUNT = Rule(
    code="CK102",
    slug="marker-count",
    severity=Severity.ERROR,
    summary="turns with more or fewer `<image>` markers than images, and system texts with a marker",
    why="Each marker is replaced by one image, in order. With a different count, images are dropped or shifted, or the "
    "run fails.",
    fix="Write one `<image>` per image of the turn, or no marker to put all images before the text. A system text has "
    "no images.",
    instead='{"id":"a","source":"pets","conversations":[{"images":["a.png"],"user":"<image>What is it?",'
    '"assistant":"A cat."}]}',
)


def _marker_count(document: Any) -> Iterator[Problem]:
    for index, turn in enumerate(_turns(document)):
        match turn:
            case {"images": list(images), "user": str(user)}:
                markers = user.count(IMAGE_MARKER)
                if markers and markers != len(images):
                    message = f"{IMAGE_MARKER} markers: {markers}, images: {len(images)}"
                    yield Problem(MARKER_COUNT, message, f"/conversations/{index}/user")


ASSISTANT_MISSING = Rule(
    code="CK103",
    slug="assistant-missing",
    severity=Severity.ERROR,
    summary="turns without an assistant text that are not the last turn",
    why="The next turn would follow an answer that was never given. Only the last turn of an unlabelled row may have "
    "no answer.",
    fix="Add the answer, or end the conversation at this turn.",
    instead='{"id":"a","source":"pets","conversations":[{"images":[],"user":"What is it?","assistant":"A cat."},'
    '{"images":[],"user":"What is it?"}]}',
)


def _assistant_missing(document: Any) -> Iterator[Problem]:
    for index, turn in enumerate(_turns(document)[:-1]):
        if isinstance(turn, dict) and "assistant" not in turn:
            message = f"turn {index + 1} of {len(_turns(document))} has no assistant text"
            yield Problem(ASSISTANT_MISSING, message, f"/conversations/{index}")


UNLABELLED_ROW = Rule(
    code="CK108",
    slug="unlabelled-row",
    severity=Severity.WARNING,
    summary="rows without an answer in a file where other rows have one",
    why="Training and evaluation skip rows without an answer, so they use fewer rows than the file has.",
    fix="Add the answers, or move these rows to an unlabelled split.",
    instead='{"id":"2","source":"pets","conversations":[{"images":[],"user":"2","assistant":"A cat."}]}',
)


class UnlabelledRows(Check):
    """CK108: report the first row without an answer in each file that also has rows with one."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._first: dict[int, int] = {}
        self._missing: Counter[int] = Counter()
        self._rows: Counter[int] = Counter()

    def rows(self, facts: RowFacts) -> None:
        """Count rows and missing answers per file."""
        lines = facts.lines[facts.answers == 0]
        self._rows[facts.file] += len(facts.answers)
        self._missing[facts.file] += len(lines)
        if len(lines):
            self._first.setdefault(facts.file, int(lines[0]))

    def end(self) -> Iterator[Finding]:
        """Yield a finding for each partly labelled file."""
        for number, line in self._first.items():
            missing, rows = self._missing[number], self._rows[number]
            if missing < rows:
                message = f"{missing:,} of {rows:,} rows have no answer; this is the first"
                yield Location(self.dataset.files[number].name, line).finding(Problem(UNLABELLED_ROW, message))


RULES = (SCHEMA_VIOLATION, MARKER_COUNT, ASSISTANT_MISSING, UNLABELLED_ROW)
CHECKS: tuple[type[Check], ...] = (UnlabelledRows,)

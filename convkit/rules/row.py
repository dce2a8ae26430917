"""CK1xx: one row, its keys and their values.

The schema decides whether a row is sound; the rules here say what is wrong with one that is not. What is asked of
the texts of sound rows is in `convkit.rules.texts`.
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

SCHEMA_VIOLATION = Rule(
    code="CK101",
    slug="schema-violation",
    severity=Severity.ERROR,
    summary="A key is missing, unknown, or has a value of the wrong kind.",
    why="Whatever reads the row would guess or fail; a misspelt key is data that is silently left out.",
    fix="Write the row as schemas/row.json says; what has no key of its own belongs in metadata.",
)
MARKER_COUNT = Rule(
    code="CK102",
    slug="marker-count",
    severity=Severity.ERROR,
    summary="A turn's <image> markers are not as many as its images, or the system text has one.",
    why="Each marker is replaced by one image, in order: with another count, images are dropped, shifted to the wrong "
    "place in the text, or the run stops in the middle.",
    fix="Give one <image> for each image of the turn, or no marker at all to put all images before the text; a system "
    "text has no images.",
)
ASSISTANT_MISSING = Rule(
    code="CK103",
    slug="assistant-missing",
    severity=Severity.ERROR,
    summary="A turn that is not the last has no assistant text.",
    why="The next turn would follow an answer that was never given. Only a split without labels ends without one.",
    fix="Add the answer, or end the conversation at this turn.",
)
EMPTY_ANSWER = Rule(
    code="CK104",
    slug="empty-answer",
    severity=Severity.ERROR,
    summary="An assistant text is empty or has nothing that can be seen.",
    why="The model is trained to say nothing, and the row counts as labelled; mostly the label was lost on the way.",
    fix="Give the answer, or leave the key assistant out where the split has no labels.",
)
EMPTY_PROMPT = Rule(
    code="CK105",
    slug="empty-prompt",
    severity=Severity.WARNING,
    summary="A user text is empty or has nothing that can be seen but <image> markers.",
    why="The model is asked nothing: it learns to answer whatever image it is shown in this one way.",
    fix="Write what is asked, such as: Describe the image.",
)
PADDED_ANSWER = Rule(
    code="CK106",
    slug="padded-answer",
    severity=Severity.WARNING,
    summary="An assistant text begins or ends with white space.",
    why="Blanks change the tokens: the model learns another answer than the one that is compared with in evaluation.",
    fix="Strip the text.",
)
MARKER_IN_ANSWER = Rule(
    code="CK107",
    slug="marker-in-answer",
    severity=Severity.ERROR,
    summary="An assistant text holds an <image> marker.",
    why="Where markers are replaced by images in the whole conversation, this one takes an image that is another "
    "marker's; elsewhere the model learns to write it.",
    fix="Remove the marker from the answer.",
)
UNLABELLED_ROW = Rule(
    code="CK108",
    slug="unlabelled-row",
    severity=Severity.WARNING,
    summary="A row has no answer, while other rows of its file have one.",
    why="A split is labelled or is not. Rows without answers are passed over in training and evaluation, so fewer "
    "rows count than there are.",
    fix="Give the answers, or put the rows into a split without labels.",
)
MOJIBAKE = Rule(
    code="CK109",
    slug="mojibake",
    severity=Severity.WARNING,
    summary="A text was decoded with the wrong encoding.",
    why="The model learns to read and write characters that nobody typed.",
    fix="Decode the source as UTF-8 and convert it again.",
)
CONTROL_CHARACTER = Rule(
    code="CK110",
    slug="control-character",
    severity=Severity.WARNING,
    summary="A text holds a control character.",
    why="It cannot be seen, but becomes tokens of its own, which the model reads and learns to write.",
    fix="Remove the character; of the control characters only tab and line ends belong in text.",
)
NOT_A_CHOICE = Rule(
    code="CK111",
    slug="answer-not-a-choice",
    severity=Severity.WARNING,
    summary="An answer is none of the choices that its prompt lists.",
    why="The prompt forbids the answer that is trained on: a class is missing from the list, or the label is wrong.",
    fix="Correct the label, or list all classes in the prompt.",
)
NOT_ACCEPTED = Rule(
    code="CK112",
    slug="answer-not-accepted",
    severity=Severity.WARNING,
    summary="An assistant text is none of the accepted answers of its turn.",
    why="What is trained on is then counted as wrong in evaluation: one of the two was changed without the other, or "
    "belongs to another question.",
    fix="Correct the assistant text, or add it to answers; case, blanks around it and full stops do not count.",
)
RULES = (
    SCHEMA_VIOLATION,
    MARKER_COUNT,
    ASSISTANT_MISSING,
    EMPTY_ANSWER,
    EMPTY_PROMPT,
    PADDED_ANSWER,
    MARKER_IN_ANSWER,
    UNLABELLED_ROW,
    MOJIBAKE,
    CONTROL_CHARACTER,
    NOT_A_CHOICE,
    NOT_ACCEPTED,
)

# The schema's own errors for these two come one at a time, and only where everything else is sound.
_FOUND_HERE = {"marker_count", "assistant_missing"}
_EXPECTED = {
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
_KINDS = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
_MAX_SHOWN = 80


def explain(raw: bytes, line: int, error: ValidationError, unended: bool = False) -> tuple[str | None, list[Problem]]:
    """Say everything that is wrong with a line that is not a sound row: its id, where it can be read, and problems.

    The order of the questions matters: what is no text has no JSON errors, and what is no JSON has no keys.

    Args:
        unended: it is the last line, and has no line end.
    """
    if problem := file.not_utf8(raw, unended):
        return None, [problem]
    try:
        document = from_json(raw)
    except ValueError as reason:
        return None, [file.invalid_json(raw, line, str(reason), unended)]
    twice = file.duplicate_key(raw, line)
    if problem := file.not_a_number(raw, line):
        return _row_id(document), [problem, *([twice] if twice else [])]
    return _row_id(document), [
        *([twice] if twice else []),
        *_schema_problems(error),
        *_marker_count(document),
        *_assistant_missing(document),
    ]


def _row_id(document: Any) -> str | None:
    row_id = document.get("id") if isinstance(document, dict) else None
    return row_id if isinstance(row_id, str) else None


def _schema_problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        if detail["type"] not in _FOUND_HERE:
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
        return f"unknown key {_quoted(loc[-1])}{_did_you_mean(str(loc[-1])[:_MAX_SHOWN].lower(), len(loc) == 1)}"
    if kind == "missing":
        return f"the required key {_quoted(loc[-1])} is missing"
    if kind in _EXPECTED:
        absent = "; leave out a key that is not used" if value is None else ""
        return f"{name} must be {_EXPECTED[kind]}, but is {_KINDS.get(type(value), 'null')}{absent}"
    if kind in ("string_too_short", "too_short"):
        return f"{name} is empty"
    if kind == "string_too_long":
        return f"{name} has {len(value):,} characters, more than {detail['ctx']['max_length']:,}"
    return f"{name}: {detail['msg']}"


def _name(loc: tuple[int | str, ...]) -> str:
    if not loc:
        return "the row"
    return f"an item of {loc[-2]}" if isinstance(loc[-1], int) and len(loc) > 1 else str(loc[-1])


@lru_cache(1000)  # what is wrong in one row is mostly wrong in all of them
def _did_you_mean(key: str, of_row: bool) -> str:
    known = list(Row.model_fields if of_row else Turn.model_fields)
    close = get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")


def _pointer(loc: tuple[int | str, ...]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


def _turns(document: Any) -> list[Any]:
    turns = document.get("conversations") if isinstance(document, dict) else None
    return turns if isinstance(turns, list) else []


def _marker_count(document: Any) -> Iterator[Problem]:
    for index, turn in enumerate(_turns(document)):
        match turn:
            case {"images": list(images), "user": str(user)}:
                markers = user.count(IMAGE_MARKER)
                if markers and markers != len(images):
                    message = f"the number of {IMAGE_MARKER} markers is {markers}, that of images is {len(images)}"
                    yield Problem(MARKER_COUNT, message, f"/conversations/{index}/user")


def _assistant_missing(document: Any) -> Iterator[Problem]:
    for index, turn in enumerate(_turns(document)[:-1]):
        if isinstance(turn, dict) and "assistant" not in turn:
            message = f"turn {index + 1} of {len(_turns(document))} has no assistant text"
            yield Problem(ASSISTANT_MISSING, message, f"/conversations/{index}")


class UnlabelledRows(Check):
    """CK108: one finding a file, at the first row without an answer; a file without any answer has none."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._first: dict[int, int] = {}
        self._missing: Counter[int] = Counter()
        self._rows: Counter[int] = Counter()

    def rows(self, facts: RowFacts) -> None:
        """Count the answers that are absent."""
        lines = facts.lines[facts.answers == 0]
        self._rows[facts.file] += len(facts.answers)
        self._missing[facts.file] += len(lines)
        if len(lines):
            self._first.setdefault(facts.file, int(lines[0]))

    def end(self) -> Iterator[Finding]:
        """Name the files where some are."""
        for number, line in self._first.items():
            missing, rows = self._missing[number], self._rows[number]
            if missing < rows:
                message = f"{missing:,} of {rows:,} rows have no answer; this is the first"
                yield Location(self.dataset.files[number].name, line).finding(Problem(UNLABELLED_ROW, message))


CHECKS: tuple[type[Check], ...] = (UnlabelledRows,)

"""What a worker does with a piece of a row file: it parses the rows, judges each, and keeps what all are judged by."""

from array import array
from functools import lru_cache
from typing import NamedTuple

from pydantic import JsonValue, TypeAdapter, ValidationError

from convkit.digests import digest
from convkit.rules import file as file_rules
from convkit.rules import row as row_rules
from convkit.rules import texts as text_rules
from convkit.rules.base import Problem
from convkit.schema import Conversation, Turn
from convkit.validate.pieces import Piece

_SCHEMA = TypeAdapter(Conversation).validator
"""Like `Conversation.model_validate_json`, without the Python around it."""
_MEMO = 1024
"""Texts that are remembered: prompts and answers of many data sets are few."""
_MEMO_CHARACTERS = 2048
_MASK = 2**64 - 1


class Found(NamedTuple):
    """A problem on its way from a worker: the rule by its code."""

    line: int
    row_id: str | None
    code: str
    message: str
    pointer: str | None


class FirstMention(NamedTuple):
    """Where a piece first names an image."""

    path: str
    line: int
    row_id: str
    turn: int
    image: int


class Parsed(NamedTuple):
    """What is sent back of a piece; packed integers are those of `array('Q')`."""

    lines: int
    blank: int
    bad_rows: int
    turns: int
    images: int
    found: list[Found]
    at: bytes
    """Lines of the sound rows; one number a row, as below."""
    ids: bytes
    groups: bytes
    inputs: bytes
    answers: bytes
    paths: bytes
    """Digests of the paths in `mentions`."""
    mentions: list[FirstMention]


class Text(NamedTuple):
    """What is to say about a text, wherever it stands."""

    problems: tuple[Problem, ...]
    digest: int
    choices: frozenset[str] | None = None


def parse(piece: Piece, *, max_line: int, key: int, mentions: bool) -> Parsed:
    """Read the rows of a piece.

    Args:
        max_line: the most bytes of a line, without its line end.
        key: of the digests.
        mentions: collect the images that rows name.
    """
    return _Parser(max_line, key, mentions).parse(piece)


class _Parser:
    def __init__(self, max_line: int, key: int, mentions: bool) -> None:
        self._max_line = max_line
        self._key = key
        self._wants_mentions = mentions
        self._blank = self._bad = self._turns = self._images = 0
        self._found: list[Found] = []
        self._at, self._ids, self._groups, self._inputs, self._answers = (array("Q") for _ in range(5))
        self._keys = array("Q")
        self._mentions: dict[str, FirstMention] = {}

    def parse(self, piece: Piece) -> Parsed:
        content = b"" if piece.overlong else piece.read()
        raws = content.split(b"\n")
        unended = bool(raws[-1])
        if piece.overlong:
            self._bad_row(piece.first_line, None, [file_rules.overlong(self._max_line)])
        else:
            if not unended:
                raws.pop()
            self._rows(raws, piece.first_line, unended)
            self._duplicate_keys(content, raws, piece.first_line)
        self._found.sort(key=lambda found: found.line)
        return Parsed(
            lines=len(raws),
            blank=self._blank,
            bad_rows=self._bad,
            turns=self._turns,
            images=self._images,
            found=self._found,
            at=self._at.tobytes(),
            ids=self._ids.tobytes(),
            groups=self._groups.tobytes(),
            inputs=self._inputs.tobytes(),
            answers=self._answers.tobytes(),
            paths=array("Q", (digest(path, self._key) for path in self._mentions)).tobytes(),
            mentions=list(self._mentions.values()),
        )

    def _rows(self, raws: list[bytes], first: int, unended: bool) -> None:
        validate = _SCHEMA.validate_json
        last = first + len(raws) - 1 if unended else None
        for line, raw in enumerate(raws, first):
            if len(raw) > self._max_line:
                self._bad_row(line, None, [file_rules.overlong(self._max_line)])
                continue
            try:
                row = validate(raw)
            except ValidationError as error:
                self._not_sound(line, raw, error, line == last)
            else:
                self._sound(line, row)
                if line == last:
                    self._tell(line, row.id, file_rules.no_last_line_end())

    def _not_sound(self, line: int, raw: bytes, error: ValidationError, unended: bool) -> None:
        if file_rules.is_blank(raw):
            self._blank += 1
            self._tell(line, None, file_rules.blank())
            return
        if problem := file_rules.byte_order_mark(raw):
            self._tell(line, None, problem)
            raw = raw[len(file_rules.BYTE_ORDER_MARK) :]
            try:
                self._sound(line, _SCHEMA.validate_json(raw))
                return
            except ValidationError as inner:
                error = inner
        row_id, problems = row_rules.explain(raw, line, error, unended)
        self._bad_row(line, row_id, problems)

    def _bad_row(self, line: int, row_id: str | None, problems: list[Problem]) -> None:
        self._bad += 1
        for problem in problems:
            self._tell(line, row_id, problem)

    def _tell(self, line: int, row_id: str | None, problem: Problem, pointer: str | None = None) -> None:
        self._found.append(Found(line, row_id, problem.rule.code, problem.message, pointer or problem.pointer))

    def _sound(self, line: int, row: Conversation) -> None:
        """Everything that is done for every row; it has two microseconds."""
        key = self._key
        keys = len(row.__pydantic_fields_set__)
        parts = [0 if row.system is None else self._other(line, row.id, row.system, "/system")]
        answer = 0
        for index, turn in enumerate(row.conversations):
            keys += len(turn.__pydantic_fields_set__)
            user, text = turn.user, turn.assistant
            prompt = _prompt(user, key) if len(user) < _MEMO_CHARACTERS else _prompt.__wrapped__(user, key)
            if prompt.problems:
                self._tell_all(line, row.id, prompt.problems, f"/conversations/{index}/user")
            parts.append(prompt.digest)
            if turn.images:
                self._images += len(turn.images)
                parts.append(digest("\n".join(turn.images), key))
                if self._wants_mentions:
                    self._mention(line, row.id, index, turn)
            if text is not None:
                parts.append(answer)
                said = _answer(text, key) if len(text) < _MEMO_CHARACTERS else _answer.__wrapped__(text, key)
                answer = said.digest
                if said.problems:
                    self._tell_all(line, row.id, said.problems, f"/conversations/{index}/assistant")
                if prompt.choices and text not in prompt.choices:
                    problems = text_rules.not_a_choice(text, prompt.choices)
                    self._tell_all(line, row.id, problems, f"/conversations/{index}/assistant")
            else:
                answer = 0
            for k, accepted in enumerate(turn.answers or ()):
                self._other(line, row.id, accepted, f"/conversations/{index}/answers/{k}")
        if row.metadata:
            keys += _keys_within(row.metadata)
        self._turns += len(row.conversations)
        self._keys.append(keys)
        self._at.append(line)
        self._ids.append(digest(row.id, key))
        self._groups.append(0 if row.group is None else digest(row.group, key))
        # The hash of a tuple of integers is the same in all processes.
        self._inputs.append(hash(tuple(parts)) & _MASK)
        self._answers.append(answer)

    def _other(self, line: int, row_id: str, text: str, pointer: str) -> int:
        """A text of which only the characters are looked at; its digest."""
        if problems := text_rules.of_any(text):
            self._tell_all(line, row_id, problems, pointer)
        return digest(text, self._key)

    def _tell_all(self, line: int, row_id: str, problems: tuple[Problem, ...], pointer: str) -> None:
        for problem in problems:
            self._tell(line, row_id, problem, pointer)

    def _mention(self, line: int, row_id: str, turn_index: int, turn: Turn) -> None:
        for index, path in enumerate(turn.images):
            if path not in self._mentions:
                self._mentions[path] = FirstMention(path, line, row_id, turn_index, index)

    def _duplicate_keys(self, content: bytes, raws: list[bytes], first: int) -> None:
        """Look closely at sound rows that may spell more keys than they have; mostly none of a piece does."""
        if file_rules.most_keys(content) == sum(self._keys):
            return
        for line, keys in zip(self._at, self._keys, strict=True):
            raw = raws[line - first]
            if file_rules.most_keys(raw) > keys and (problem := file_rules.duplicate_key(raw, line)):
                self._tell(line, None, problem)


def _keys_within(value: JsonValue) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_within, value.values()))
    return sum(map(_keys_within, value)) if isinstance(value, list) else 0


@lru_cache(_MEMO)
def _prompt(text: str, key: int) -> Text:
    return Text(text_rules.of_prompt(text), digest(text, key), text_rules.choices(text))


@lru_cache(_MEMO)
def _answer(text: str, key: int) -> Text:
    return Text(text_rules.of_answer(text), digest(text, key))

"""What a worker does with a piece of a row file: it parses the rows, judges each, and keeps what all are judged by."""

from array import array
from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

from pydantic import ValidationError

from convkit.rules import file as file_rules
from convkit.rules import row as row_rules
from convkit.rules import texts as text_rules
from convkit.rules.base import Problem
from convkit.schema import IMAGE_MARKER, Row
from convkit.utils.digests import digest, packed_digests
from convkit.validate.chunks import Piece
from convkit.validate.fast_schema import PlainRow, keys_of, read_row

_MASK = 2**64 - 1
_NO_JSON = {rule.code for rule in (file_rules.NOT_UTF8, file_rules.INVALID_JSON, file_rules.TRUNCATED_LINE)}


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
    accepted: bytes
    paths: bytes
    """Digests of the paths in `mentions`."""
    mentions: list[FirstMention]


class _Prompt(NamedTuple):
    """What is to say about a user text, wherever it stands in the piece."""

    problems: tuple[Problem, ...]
    digest: int
    markers: int
    choices: frozenset[str] | None


class _Answer(NamedTuple):
    """What is to say about an assistant text."""

    problems: tuple[Problem, ...]
    digest: int


_Sound = tuple[int, str, int, int, int, int, int]
"""Of a sound row: line, id, digests of group, input, answer and accepted answers, number of keys."""
_NOTHING: tuple[tuple[()], ...] = ((),) * 7


class _NotSoundError(Exception):
    """The row breaks one of the rules that the plain schema does not know."""


Job = tuple[Piece, int]
"""A piece, and the key of its digests."""


def parse(job: Job, *, max_line: int, mentions: bool) -> Parsed:
    """Read the rows of a piece.

    Args:
        max_line: the most bytes of a line, without its line end.
        mentions: collect the images that rows name.
    """
    piece, key = job
    return _Parser(max_line, key, mentions).parse(piece)


class _Parser:
    def __init__(self, max_line: int, key: int, mentions: bool) -> None:
        self._max_line = max_line
        self._key = key
        self._wants_mentions = mentions
        self._blank = self._bad = self._turns = self._images = 0
        self._found: list[Found] = []
        self._sound: list[_Sound] = []
        # A piece has few prompts and answers, or is read once: no bound is needed.
        self._prompts: dict[str, _Prompt] = {}
        self._said: dict[str, _Answer] = {}
        self._mentions: dict[str, FirstMention] = {}

    def parse(self, piece: Piece) -> Parsed:
        count = 1
        if piece.overlong:
            self._bad_row(piece.first_line, None, [file_rules.overlong(self._max_line)])
        else:
            content = piece.read()
            count = self._rows(content, piece.first_line)
            self._duplicate_keys(piece, content)
        self._found.sort(key=lambda found: found.line)
        lines, ids, groups, inputs, answers, accepted, _ = zip(*self._sound, strict=True) if self._sound else _NOTHING
        return Parsed(
            lines=count,
            blank=self._blank,
            bad_rows=self._bad,
            turns=self._turns,
            images=self._images,
            found=self._found,
            at=_packed(lines),
            ids=packed_digests(ids, self._key),
            groups=_packed(groups),
            inputs=_packed(inputs),
            answers=_packed(answers),
            accepted=_packed(accepted),
            paths=packed_digests(self._mentions, self._key),
            mentions=list(self._mentions.values()),
        )

    def _rows(self, content: bytes, first: int) -> int:
        """Take the lines; the answer is how many there are."""
        line, unended, most = first - 1, not content.endswith(b"\n"), self._max_line + 1
        # Lines that come one by one are read where the last one was: a list of them takes a twentieth longer.
        for line, raw in enumerate(BytesIO(content), first):
            try:
                if len(raw) <= most:
                    self._take(line, read_row(raw))
                else:
                    self._bad_row(line, None, [file_rules.overlong(self._max_line)])
            except (ValidationError, _NotSoundError):
                self._not_sound(line, raw.removesuffix(b"\n"), unended and not raw.endswith(b"\n"))
        if unended and not (self._found and self._found[-1].line == line and self._found[-1].code in _NO_JSON):
            self._tell(line, None, file_rules.no_last_line_end())
        return line - first + 1

    def _take(self, line: int, row: PlainRow) -> None:
        """All that is done for every row; it has a microsecond or two.

        Raises:
            _NotSoundError: the row is not sound after all; then nothing was done.
        """
        turns = row["conversations"]
        parts: list[int] = []
        answer = accepted = images = 0
        keys = len(row)
        problems: list[tuple[str, tuple[Problem, ...]]] = []
        for index, turn in enumerate(turns):
            keys += len(turn)
            user, paths, text = turn["user"], turn["images"], turn.get("assistant")
            prompt = self._prompts.get(user) or self._new_prompt(user)
            if prompt.markers and prompt.markers != len(paths):
                raise _NotSoundError
            if prompt.problems:
                problems.append((f"/conversations/{index}/user", prompt.problems))
            parts += (answer, prompt.digest)
            if paths:
                images += len(paths)
                parts.append(digest("\n".join(paths).encode(), self._key))
            if text is None:
                if index < len(turns) - 1:
                    raise _NotSoundError
                answer = accepted = 0
            else:
                said = self._said.get(text) or self._new_answer(text)
                answer = accepted = said.digest
                if said.problems or (prompt.choices and text not in prompt.choices):
                    problems.append((f"/conversations/{index}/assistant", _of_answer(said, text, prompt)))
            if "answers" in turn:
                right = turn["answers"] or ()
                problems += _of_answers(right, index)
                if text is not None and text not in right:
                    problems.append((f"/conversations/{index}/assistant", text_rules.not_accepted(text, right)))
                elif text is not None:
                    accepted = digest(repr(sorted(set(right))).encode(), self._key)
        if "metadata" in row:
            keys = keys_of(row)
        if "system" in row and (system := row["system"]) is not None:
            problems.append(("/system", text_rules.of_system(system)))
            parts.append(digest(system.encode(), self._key))
        for pointer, several in problems:
            for problem in several:
                self._tell(line, row["id"], problem, pointer)
        if images and self._wants_mentions:
            self._mention(line, row)
        self._turns += len(turns)
        self._images += images
        group = row.get("group")
        # The hash of a tuple of integers is the same in all processes.
        inputs = hash(tuple(parts)) & _MASK
        self._sound.append(
            (line, row["id"], 0 if group is None else digest(group.encode(), self._key), inputs, answer, accepted, keys)
        )

    def _new_prompt(self, text: str) -> _Prompt:
        number = digest(text.encode(), self._key)
        seen = _Prompt(text_rules.of_prompt(text), number, text.count(IMAGE_MARKER), text_rules.choices(text))
        self._prompts[text] = seen
        return seen

    def _new_answer(self, text: str) -> _Answer:
        seen = _Answer(text_rules.of_answer(text), digest(text.encode(), self._key))
        self._said[text] = seen
        return seen

    def _not_sound(self, line: int, raw: bytes, unended: bool) -> None:
        if file_rules.is_blank(raw):
            self._blank += 1
            self._tell(line, None, file_rules.blank())
            return
        if problem := file_rules.byte_order_mark(raw):
            self._tell(line, None, problem)
            raw = file_rules.without_marks(raw)
            try:
                self._take(line, read_row(raw))
                return
            except (ValidationError, _NotSoundError):
                pass
        try:
            Row.model_validate_json(raw)
        except ValidationError as error:
            self._bad_row(line, *row_rules.explain(raw, line, error, unended))

    def _bad_row(self, line: int, row_id: str | None, problems: list[Problem]) -> None:
        self._bad += 1
        for problem in problems:
            self._tell(line, row_id, problem)

    def _tell(self, line: int, row_id: str | None, problem: Problem, pointer: str | None = None) -> None:
        self._found.append(Found(line, row_id, problem.rule.code, problem.message, pointer or problem.pointer))

    def _mention(self, line: int, row: PlainRow) -> None:
        mentions = self._mentions
        for turn, content in enumerate(row["conversations"]):
            for image, path in enumerate(content["images"]):
                if path not in mentions:
                    mentions[path] = FirstMention(path, line, row["id"], turn, image)

    def _duplicate_keys(self, piece: Piece, content: bytes) -> None:
        """Look closely at sound rows that may spell more keys than they have; mostly none of a piece does."""
        if piece.most_keys == sum(sound[-1] for sound in self._sound):
            return
        raws = content.split(b"\n")
        for line, row_id, *_, keys in self._sound:
            raw = file_rules.without_marks(raws[line - piece.first_line])
            if file_rules.most_keys(raw) > keys and (problem := file_rules.duplicate_key(raw, line)):
                self._tell(line, row_id, problem)


def _of_answer(said: _Answer, text: str, prompt: _Prompt) -> tuple[Problem, ...]:
    if prompt.choices and text not in prompt.choices:
        return (*said.problems, *text_rules.not_a_choice(text, prompt.choices))
    return said.problems


def _of_answers(accepted: tuple[str, ...], index: int) -> list[tuple[str, tuple[Problem, ...]]]:
    return [(f"/conversations/{index}/answers/{k}", text_rules.of_any(text)) for k, text in enumerate(accepted)]


def _packed(numbers: Iterable[int]) -> bytes:
    return array("Q", numbers).tobytes()

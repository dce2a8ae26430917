"""Parse a chunk of a row file in a worker process: problems of single rows, and digests for the dataset-wide checks."""

from array import array
from collections.abc import Iterable
from io import BytesIO
from typing import NamedTuple

from pydantic import ValidationError

from convkit.rules import file as file_rules
from convkit.rules import row as row_rules
from convkit.rules import texts as text_rules
from convkit.rules.base import ImageRef, Problem, Rule
from convkit.schema import IMAGE_MARKER, Row
from convkit.utils.digests import digest, packed_digests
from convkit.validate.chunks import RowChunk
from convkit.validate.fast_schema import PlainRow, count_keys, read_row

_MASK = 2**64 - 1
_NOT_JSON = (file_rules.NOT_UTF8, file_rules.INVALID_JSON, file_rules.TRUNCATED_LINE)

RowProblem = tuple[int, str | None, Rule, str, str | None]
"""A problem of a row: line number, row id (None if it cannot be read), and the fields of `Problem`.

A flat tuple: it takes a fifth of the time to send.
"""


class RowJob(NamedTuple):
    """The input of `parse_rows`: one chunk of a row file."""

    chunk: RowChunk
    key: int
    """The key of all digests."""
    file: int
    """The index into `DatasetFiles.files`."""


class ParsedChunk(NamedTuple):
    """The result of `parse_rows`. Byte strings hold the integers of an `array('Q')`, one per valid row."""

    lines: int
    blank: int
    bad_rows: int
    turns: int
    images: int
    problems: list[RowProblem]
    row_lines: bytes
    """Line numbers of the valid rows."""
    ids: bytes
    groups: bytes
    inputs: bytes
    answers: bytes
    accepted: bytes
    paths: bytes
    """Digests of the paths in `image_refs`, one per path."""
    image_refs: list[ImageRef]


class _Prompt(NamedTuple):
    """A user text with its problems; cached, because many rows repeat the text."""

    problems: tuple[Problem, ...]
    digest: int
    markers: int
    choices: frozenset[str] | None


class _Answer(NamedTuple):
    """An assistant text with its problems, cached like a prompt."""

    problems: tuple[Problem, ...]
    digest: int


_ValidRow = tuple[int, str, int, int, int, int, int]
"""Line number, id, digests of group, input, answer and accepted answers, number of keys."""
_NO_ROWS: tuple[tuple[()], ...] = ((),) * 7


class _InvalidRow(Exception):
    """The row breaks one of the two rules that `PlainRow` does not check."""


def parse_rows(job: RowJob, *, max_line: int, image_refs: bool) -> ParsedChunk:
    """Parse the rows of a chunk.

    Args:
        max_line: maximum bytes per line, without its line end.
        image_refs: collect the images that rows reference.
    """
    return _Parser(job, max_line, image_refs).parse()


class _Parser:
    def __init__(self, job: RowJob, max_line: int, collect_image_refs: bool) -> None:
        self._chunk, self._key, self._file = job
        self._max_line = max_line
        self._collect_image_refs = collect_image_refs
        self._blank = self._bad = self._turns = self._images = 0
        self._problems: list[RowProblem] = []
        self._valid: list[_ValidRow] = []
        # Unbounded: a chunk is small enough to hold all its texts.
        self._prompts: dict[str, _Prompt] = {}
        self._answers: dict[str, _Answer] = {}
        self._image_refs: dict[str, ImageRef] = {}

    def parse(self) -> ParsedChunk:
        count = 1
        if self._chunk.overlong:
            self._add_bad_row(self._chunk.first_line, None, [file_rules.overlong(self._max_line)])
        else:
            content = self._chunk.read()
            count = self._parse_lines(content, self._chunk.first_line)
            self._find_duplicate_keys(content)
        self._problems.sort(key=lambda problem: problem[0])
        lines, ids, groups, inputs, answers, accepted, _ = zip(*self._valid, strict=True) if self._valid else _NO_ROWS
        return ParsedChunk(
            lines=count,
            blank=self._blank,
            bad_rows=self._bad,
            turns=self._turns,
            images=self._images,
            problems=self._problems,
            row_lines=_packed(lines),
            ids=packed_digests(ids, self._key),
            groups=_packed(groups),
            inputs=_packed(inputs),
            answers=_packed(answers),
            accepted=_packed(accepted),
            paths=packed_digests(self._image_refs, self._key),
            image_refs=list(self._image_refs.values()),
        )

    def _parse_lines(self, content: bytes, first: int) -> int:
        """Parse all lines and return their number."""
        line, unterminated, max_bytes = first - 1, not content.endswith(b"\n"), self._max_line + 1
        # Iterating is 5 % faster than splitting into a list of lines.
        for line, raw in enumerate(BytesIO(content), first):
            try:
                if len(raw) <= max_bytes:
                    self._add_row(line, read_row(raw))
                else:
                    self._add_bad_row(line, None, [file_rules.overlong(self._max_line)])
            except (ValidationError, _InvalidRow):
                self._explain_invalid(line, raw.removesuffix(b"\n"), unterminated and not raw.endswith(b"\n"))
        if unterminated and not self._last_line_is_not_json(line):
            self._add_problem(line, None, file_rules.no_last_line_end())
        return line - first + 1

    def _last_line_is_not_json(self, line: int) -> bool:
        if not self._problems:
            return False
        last, _, rule, *_ = self._problems[-1]
        return last == line and rule in _NOT_JSON

    def _add_row(self, line: int, row: PlainRow) -> None:
        """Check a row that `read_row` accepted. Runs once per row in 1 to 2 us, so it stays one long function.

        Raises:
            _InvalidRow: the row is not valid after all; nothing was added.
        """
        turns = row["conversations"]
        parts: list[int] = []
        last_answer = accepted = images = 0
        keys = len(row)
        problems: list[tuple[str, tuple[Problem, ...]]] = []
        for index, turn in enumerate(turns):
            keys += len(turn)
            user, paths, text = turn["user"], turn["images"], turn.get("assistant")
            prompt = self._prompts.get(user) or self._new_prompt(user)
            if prompt.markers and prompt.markers != len(paths):
                raise _InvalidRow
            if prompt.problems:
                problems.append((f"/conversations/{index}/user", prompt.problems))
            parts += (last_answer, prompt.digest)
            if paths:
                images += len(paths)
                parts.append(digest("\n".join(paths).encode(), self._key))
            if text is None:
                if index < len(turns) - 1:
                    raise _InvalidRow
                last_answer = accepted = 0
            else:
                answer = self._answers.get(text) or self._new_answer(text)
                last_answer = accepted = answer.digest
                if answer.problems or (prompt.choices and text not in prompt.choices):
                    problems.append((f"/conversations/{index}/assistant", _answer_problems(answer, text, prompt)))
            if "answers" in turn:
                right = turn["answers"] or ()
                problems += _accepted_answer_problems(right, index)
                if text is not None and text not in right:
                    problems.append((f"/conversations/{index}/assistant", text_rules.not_accepted(text, right)))
                elif text is not None:
                    accepted = digest(repr(sorted(set(right))).encode(), self._key)
        if "metadata" in row:
            keys = count_keys(row)
        if "system" in row and (system := row["system"]) is not None:
            problems.append(("/system", text_rules.of_system(system)))
            parts.append(digest(system.encode(), self._key))
        for pointer, several in problems:
            for problem in several:
                self._add_problem(line, row["id"], problem, pointer)
        if images and self._collect_image_refs:
            self._add_image_refs(line, row)
        self._turns += len(turns)
        self._images += images
        group = row.get("group")
        group_digest = 0 if group is None else digest(group.encode(), self._key)
        # The hash of a tuple of integers is the same in all processes.
        inputs = hash(tuple(parts)) & _MASK
        self._valid.append((line, row["id"], group_digest, inputs, last_answer, accepted, keys))

    def _new_prompt(self, text: str) -> _Prompt:
        text_digest = digest(text.encode(), self._key)
        prompt = _Prompt(text_rules.of_prompt(text), text_digest, text.count(IMAGE_MARKER), text_rules.choices(text))
        self._prompts[text] = prompt
        return prompt

    def _new_answer(self, text: str) -> _Answer:
        answer = _Answer(text_rules.of_answer(text), digest(text.encode(), self._key))
        self._answers[text] = answer
        return answer

    def _explain_invalid(self, line: int, raw: bytes, unterminated: bool) -> None:
        """Add the problems of a line that `_add_row` did not take."""
        if file_rules.is_blank(raw):
            self._blank += 1
            self._add_problem(line, None, file_rules.blank())
            return
        if problem := file_rules.byte_order_mark(raw):
            self._add_problem(line, None, problem)
            raw = file_rules.without_marks(raw)
            try:
                self._add_row(line, read_row(raw))
                return
            except (ValidationError, _InvalidRow):
                pass
        try:
            Row.model_validate_json(raw)
        except ValidationError as error:
            self._add_bad_row(line, *row_rules.explain(raw, line, error, unterminated))

    def _add_bad_row(self, line: int, row_id: str | None, problems: list[Problem]) -> None:
        self._bad += 1
        for problem in problems:
            self._add_problem(line, row_id, problem)

    def _add_problem(self, line: int, row_id: str | None, problem: Problem, pointer: str | None = None) -> None:
        self._problems.append((line, row_id, problem.rule, problem.message, pointer or problem.pointer))

    def _add_image_refs(self, line: int, row: PlainRow) -> None:
        refs = self._image_refs
        for turn, content in enumerate(row["conversations"]):
            for image, path in enumerate(content["images"]):
                if path not in refs:
                    refs[path] = ImageRef(path, self._file, line, row["id"], turn, image)

    def _find_duplicate_keys(self, content: bytes) -> None:
        """Parse valid rows again that may repeat a key; most chunks have none."""
        if self._chunk.max_keys == sum(row[-1] for row in self._valid):
            return
        raws = content.split(b"\n")
        for line, row_id, *_, keys in self._valid:
            raw = file_rules.without_marks(raws[line - self._chunk.first_line])
            if file_rules.most_keys(raw) > keys and (problem := file_rules.duplicate_key(raw, line)):
                self._add_problem(line, row_id, problem)


def _answer_problems(answer: _Answer, text: str, prompt: _Prompt) -> tuple[Problem, ...]:
    if prompt.choices and text not in prompt.choices:
        return (*answer.problems, *text_rules.not_a_choice(text, prompt.choices))
    return answer.problems


def _accepted_answer_problems(accepted: tuple[str, ...], index: int) -> list[tuple[str, tuple[Problem, ...]]]:
    return [(f"/conversations/{index}/answers/{k}", text_rules.of_any(text)) for k, text in enumerate(accepted)]


def _packed(numbers: Iterable[int]) -> bytes:
    return array("Q", numbers).tobytes()

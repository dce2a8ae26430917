"""What an evaluation asks: every turn of every row, with the history that it is asked after."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from convkit.metrics.answers import normalize
from convkit.schema import IMAGE_MARKER, Row

History = Literal["gold", "none"]
"""Before a turn stand the earlier ones with their true answers, or nothing but their images."""


@dataclass(frozen=True)
class Question:
    """A turn of a row."""

    row: Row
    turn: int

    def asked(self, history: History) -> Row:
        """The conversation that ends with this turn. Images of earlier turns are shown with either history."""
        turns = self.row.conversations[: self.turn + 1]
        if history == "none" and self.turn:
            last = turns[-1]
            earlier = tuple(image for turn in turns[:-1] for image in turn.images)
            # Where the text says itself where its images stand, it must say so of the others as well.
            markers = IMAGE_MARKER * len(earlier) if IMAGE_MARKER in last.user else ""
            turns = (last.model_copy(update={"images": (*earlier, *last.images), "user": markers + last.user}),)
        return self.row.model_copy(update={"conversations": turns})


def questions(rows: Iterable[Row]) -> list[Question]:
    """All turns, in the order of rows and turns."""
    return [Question(row, turn) for row in rows for turn, _ in enumerate(row.conversations)]


def two_answers(asked: Iterable[Question], positive: Iterable[str]) -> dict[str, tuple[str, str]]:
    """By data set, its positive and its other answer, where its gold answers are these two and no others."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for question in asked:
        answer = question.row.conversations[question.turn].assistant
        if answer is not None and len(found[question.row.source]) < 3:
            found[question.row.source].setdefault(normalize(answer), answer)
    wanted = set(map(normalize, positive))
    split = {source: _split(answers, wanted.__contains__) for source, answers in found.items() if len(answers) == 2}
    return {source: (yes[0], no[0]) for source, (yes, no) in split.items() if yes and no}


def _split(answers: dict[str, str], positive: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    yes = [answer for key, answer in answers.items() if positive(key)]
    return yes, [answer for key, answer in answers.items() if not positive(key)]

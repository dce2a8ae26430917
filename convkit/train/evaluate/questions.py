"""Ask about every turn of every row, with the earlier turns as context."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from convkit.metrics.answers import normalize
from convkit.schema import IMAGE_MARKER, Row
from convkit.train.evaluate.options import Context


@dataclass(frozen=True)
class Question:
    """One turn of a row."""

    row: Row
    turn: int

    def prompt_row(self, context: Context) -> Row:
        """Return the row cut off after this turn. Both contexts keep the images of earlier turns."""
        turns = self.row.conversations[: self.turn + 1]
        if context == "images_only" and self.turn:
            last = turns[-1]
            earlier = tuple(image for turn in turns[:-1] for image in turn.images)
            # If the text marks where its own images stand, the earlier images need markers too.
            markers = IMAGE_MARKER * len(earlier) if IMAGE_MARKER in last.user else ""
            turns = (last.model_copy(update={"images": (*earlier, *last.images), "user": markers + last.user}),)
        return self.row.model_copy(update={"conversations": turns})


def list_questions(rows: Iterable[Row]) -> list[Question]:
    """Return a question per turn, in the order of rows and turns."""
    return [Question(row, turn) for row in rows for turn, _ in enumerate(row.conversations)]


def binary_answers(questions: Iterable[Question], positive: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the positive and the negative answer of each source whose gold answers are exactly these two."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for question in questions:
        answer = question.row.conversations[question.turn].assistant
        if answer is not None and len(found[question.row.source]) < 3:
            found[question.row.source].setdefault(normalize(answer), answer)
    wanted = set(map(normalize, positive))
    split = {source: _split(answers, wanted.__contains__) for source, answers in found.items() if len(answers) == 2}
    return {source: (yes[0], no[0]) for source, (yes, no) in split.items() if yes and no}


def _split(answers: dict[str, str], positive: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    yes = [answer for key, answer in answers.items() if positive(key)]
    return yes, [answer for key, answer in answers.items() if not positive(key)]

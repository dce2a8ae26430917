"""CK311 and CK312: how answers are spread over rows and splits. The rules are in `convkit.rules.dataset`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.layout import is_training
from convkit.rules.base import Check, DatasetFiles, Problem, RowFacts, Rule
from convkit.rules.lookup import MOST_LISTED, Key, first_places, not_listed, quoted, split_names
from convkit.schema import Row
from convkit.utils.digests import Column

if TYPE_CHECKING:
    from convkit.utils.digests import Digests

LABEL_IMBALANCE = Rule(
    code="CK311",
    slug="label-imbalance",
    severity=Severity.WARNING,
    summary="splits in which one answer makes up 90 % of the rows or more",
    why="Always giving this answer scores 90 % or more. Neither loss nor accuracy shows if the model uses the images.",
    fix="Balance the split, weight the rows, or report metrics per class.",
)
UNSEEN_CLASS = Rule(
    code="CK312",
    slug="unseen-class",
    severity=Severity.WARNING,
    summary="answers that never occur in the training split, although its answers are a few classes",
    why="The model never learns to give this answer. Usually it is one class in two spellings.",
    fix="Use the spelling of the training split, or add rows of this class to it.",
)
MIN_ROWS = 100
"""In a split with fewer rows, nine in ten may be chance."""
MOST_COMMON_SHARE = 0.9
MOST_CLASSES = 1000
MOST_SINGLE_SHARE = 0.1
"""Of free answers, mostly half or more occur once; of classes, hardly one does."""


class _Answers(NamedTuple):
    """The last answers of a split's rows."""

    values: "Digests"
    """Digests, each once, sorted."""
    counts: "Digests"

    @property
    def are_classes(self) -> bool:
        """Whether they look like a closed list."""
        single = int((self.counts == 1).sum())
        return 1 < len(self.values) <= MOST_CLASSES and single <= MOST_SINGLE_SHARE * len(self.values)


class Labels(Check):
    """CK311 and CK312. Keeps eight bytes a row.

    Nothing is said of splits with rows of several turns: the last of several answers is no label.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._splits = split_names(dataset)
        self._columns: dict[str, Column] = {}

    def rows(self, facts: RowFacts) -> None:
        """Keep the answers that there are."""
        self._columns.setdefault(self._splits[facts.file], Column()).append(facts.answers[facts.answers != 0])

    def end(self) -> Iterator[Finding]:
        """Count them."""
        files = zip(self.dataset.files, self._splits, strict=True)
        several = {split for file, split in files if file.turns > file.rows - file.bad_rows}
        answers = {split: _count(column) for split, column in self._columns.items() if split not in several}
        yield from self._imbalance(answers)
        yield from self._unseen(answers)

    def _imbalance(self, answers: dict[str, _Answers]) -> Iterator[Finding]:
        wanted = {}
        for split, (values, counts) in answers.items():
            rows = int(counts.sum())
            if rows >= MIN_ROWS and counts.max() >= MOST_COMMON_SHARE * rows:
                wanted[split, int(values[counts.argmax()])] = (int(counts.max()), rows)
        for key, found in first_places(self.dataset, wanted, _answer).items():
            most, rows = wanted[key]
            message = f"{most:,} of {rows:,} rows of the split {key[0]} have the answer {quoted(found.text)}"
            yield found.location.finding(Problem(LABEL_IMBALANCE, message, found.pointer))

    def _unseen(self, answers: dict[str, _Answers]) -> Iterator[Finding]:
        import numpy as np

        training = [one for split, one in answers.items() if is_training(split)]
        if not training or not all(one.are_classes for one in training):
            return
        known = np.concatenate([one.values for one in training])
        wanted: dict[Key, int] = {}
        for split, (values, counts) in answers.items():
            if not is_training(split):
                new = ~np.isin(values, known)
                wanted |= {(split, key): n for key, n in zip(values[new].tolist(), counts[new].tolist(), strict=True)}
        listed = dict(list(wanted.items())[:MOST_LISTED])
        for key, found in first_places(self.dataset, listed, _answer).items():
            rows = f"{listed[key]:,} rows" if listed[key] > 1 else "one row"
            message = f"the answer {quoted(found.text)}, of {rows} of the split {key[0]}, never occurs in training"
            yield found.location.finding(Problem(UNSEEN_CLASS, message, found.pointer))
        yield from not_listed(self.dataset, UNSEEN_CLASS, len(wanted))


def _count(column: Column) -> _Answers:
    import numpy as np

    values, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *column.blocks()]), return_counts=True)
    return _Answers(values, counts.astype(np.uint64))


def _answer(row: Row) -> Iterator[tuple[str, str]]:
    last = len(row.conversations) - 1
    if (answer := row.conversations[last].assistant) is not None:
        yield answer, f"/conversations/{last}/assistant"


RULES = (LABEL_IMBALANCE, UNSEEN_CLASS)
CHECKS: tuple[type[Check], ...] = (Labels,)

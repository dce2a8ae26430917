"""CK311 and CK312: the distribution of answers over rows and splits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.layout import is_training
from convkit.rules.base import Check, DatasetFiles, Problem, RowFacts, Rule
from convkit.rules.lookup import MAX_LISTED, Key, first_uses, quoted, split_names, unlisted
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
_MIN_ROWS = 100
"""Rows of a split that CK311 needs; in fewer rows such a share may be chance."""
_MAX_SHARE = 0.9
_MAX_CLASSES = 1000
_MAX_SINGLETON_SHARE = 0.1
"""Share of answers that occur only once: half or more of free-form answers, hardly any of classes."""


class _Answers(NamedTuple):
    """The distinct last answers of a split's rows, with their counts."""

    values: "Digests"
    """Digests of the distinct answers, sorted."""
    counts: "Digests"

    @property
    def are_classes(self) -> bool:
        """Return true if the answers look like a closed set of classes."""
        single = int((self.counts == 1).sum())
        return 1 < len(self.values) <= _MAX_CLASSES and single <= _MAX_SINGLETON_SHARE * len(self.values)


class Labels(Check):
    """CK311 and CK312. Keeps eight bytes per row.

    Splits with multi-turn rows are skipped, because the last of several answers is not a label.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._splits = split_names(dataset)
        self._columns: dict[str, Column] = {}

    def rows(self, facts: RowFacts) -> None:
        """Store the digests of the answers per split."""
        self._columns.setdefault(self._splits[facts.file], Column()).append(facts.answers[facts.answers != 0])

    def end(self) -> Iterator[Finding]:
        """Count the answers and yield the findings of both rules."""
        files = zip(self.dataset.files, self._splits, strict=True)
        multi_turn = {split for file, split in files if file.turns > file.rows - file.bad_rows}
        answers = {split: _count(column) for split, column in self._columns.items() if split not in multi_turn}
        yield from self._imbalance(answers)
        yield from self._unseen(answers)

    def _imbalance(self, answers: dict[str, _Answers]) -> Iterator[Finding]:
        wanted = {}
        for split, (values, counts) in answers.items():
            rows = int(counts.sum())
            if rows >= _MIN_ROWS and counts.max() >= _MAX_SHARE * rows:
                wanted[split, int(values[counts.argmax()])] = (int(counts.max()), rows)
        for key, found in first_uses(self.dataset, wanted, _answer).items():
            most, rows = wanted[key]
            message = f"{most:,} of {rows:,} rows of split {key[0]} have the answer {quoted(found.text)}"
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
        listed = dict(list(wanted.items())[:MAX_LISTED])
        for key, found in first_uses(self.dataset, listed, _answer).items():
            rows = f"{listed[key]:,} rows" if listed[key] > 1 else "one row"
            message = f"the answer {quoted(found.text)} ({rows} of split {key[0]}) never occurs in the training split"
            yield found.location.finding(Problem(UNSEEN_CLASS, message, found.pointer))
        yield from unlisted(self.dataset, UNSEEN_CLASS, len(wanted))


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

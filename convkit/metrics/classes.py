"""Per-class precision, recall and F1, and the confusion matrix, for answers that are class names."""

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from convkit.metrics.answers import normalize


class ClassScore(BaseModel):
    """The scores of a class, with its row of the confusion matrix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The gold answer, as first spelled in the file.")
    support: int = Field(ge=1, description="Turns whose gold answer is this class.")
    predicted: int = Field(ge=0, description="Turns whose prediction is this class.")
    correct: int = Field(ge=0, description="Turns whose gold answer and prediction are this class.")
    precision: float | None = Field(description="correct / predicted; null if this class is never predicted.")
    recall: float = Field(description="correct / support.")
    f1: float = Field(description="2 correct / (support + predicted).")
    predicted_as: dict[str, int] = Field(
        description="Row of the confusion matrix: turns by predicted class; zeros are omitted."
    )
    no_class: int = Field(ge=0, description="Turns whose prediction is not a gold answer of the file.")


def class_scores(pairs: Iterable[tuple[str, str]]) -> list[ClassScore]:
    """Return the scores of all classes that occur as a gold answer, ordered by name.

    Args:
        pairs: gold answer and prediction of each turn; both are normalized as for accuracy.
    """
    names: dict[str, str] = {}
    cells: Counter[tuple[str, str]] = Counter()
    for gold, prediction in pairs:
        key = normalize(gold)
        names.setdefault(key, gold)
        cells[key, normalize(prediction)] += 1
    rows: dict[str, Counter[str]] = {key: Counter() for key in sorted(names)}
    columns: Counter[str] = Counter()
    for (gold, prediction), count in sorted(cells.items()):
        rows[gold][prediction] += count
        columns[prediction] += count
    return [_score(key, names, row, columns[key]) for key, row in rows.items()]


def _score(key: str, names: dict[str, str], row: Counter[str], predicted: int) -> ClassScore:
    support, correct = row.total(), row[key]
    known = {names[prediction]: count for prediction, count in row.items() if prediction in names}
    return ClassScore(
        name=names[key],
        support=support,
        predicted=predicted,
        correct=correct,
        precision=correct / predicted if predicted else None,
        recall=correct / support,
        f1=2 * correct / (support + predicted),
        predicted_as=known,
        no_class=support - sum(known.values()),
    )


def confusions(classes: Iterable[ClassScore]) -> list[tuple[int, str, str | None]]:
    """Return (turns, gold class, predicted class or None) of each off-diagonal cell, the largest first."""
    found: list[tuple[int, str, str | None]] = []
    for c in classes:
        found += [(turns, c.name, other) for other, turns in c.predicted_as.items() if other != c.name]
        found += [(c.no_class, c.name, None)] * bool(c.no_class)
    return sorted(found, key=lambda cell: (-cell[0], cell[1], cell[2] or ""))

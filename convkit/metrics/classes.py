"""Where answers are classes: how well each is found, and what it is mistaken for."""

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from convkit.metrics.answers import normalize


class ClassScore(BaseModel):
    """One class: a row of the confusion matrix, and what follows from its column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The gold answer, as it is first spelled.")
    support: int = Field(ge=1, description="Turns whose gold answer is this class.")
    predicted: int = Field(ge=0, description="Turns whose prediction is this class.")
    correct: int = Field(ge=0, description="Turns of which both is true.")
    precision: float | None = Field(description="correct / predicted; null where nothing is predicted as this class.")
    recall: float = Field(description="correct / support.")
    f1: float = Field(description="2 correct / (support + predicted).")
    predicted_as: dict[str, int] = Field(
        description="The row of the confusion matrix: how often each class was predicted, by name; 0 is left out."
    )
    no_class: int = Field(ge=0, description="Turns whose prediction is no gold answer of the file.")


def class_scores(pairs: Iterable[tuple[str, str]]) -> list[ClassScore]:
    """The table of all classes that are a gold answer, in the order of their names.

    Args:
        pairs: gold answer and prediction of each turn; both are normalised as for accuracy.
    """
    names: dict[str, str] = {}
    cells: Counter[tuple[str, str]] = Counter()
    for gold, prediction in pairs:
        key = normalize(gold)
        names.setdefault(key, gold)
        cells[key, normalize(prediction)] += 1
    rows: dict[str, Counter[str]] = {key: Counter() for key in sorted(names)}
    columns: Counter[str] = Counter()
    for (gold, prediction), times in sorted(cells.items()):
        rows[gold][prediction] += times
        columns[prediction] += times
    return [_score(key, names, row, columns[key]) for key, row in rows.items()]


def _score(key: str, names: dict[str, str], row: Counter[str], predicted: int) -> ClassScore:
    support, correct = row.total(), row[key]
    known = {names[prediction]: times for prediction, times in row.items() if prediction in names}
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
    """Turns, gold class and predicted class (None: no class) of each cell beside the diagonal, the fullest first."""
    found: list[tuple[int, str, str | None]] = []
    for c in classes:
        found += [(turns, c.name, other) for other, turns in c.predicted_as.items() if other != c.name]
        found += [(c.no_class, c.name, None)] * bool(c.no_class)
    return sorted(found, key=lambda cell: (-cell[0], cell[1], cell[2] or ""))

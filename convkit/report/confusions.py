"""Per-class scores and confusion matrices of the last evaluation."""

from dataclasses import dataclass

from convkit.metrics.classes import ClassScore, confusions
from convkit.report.curves import format_number
from convkit.report.run_directory import Run
from convkit.report.tables import Table

MAX_CLASSES = 200
MAX_MATRIX = 24
"""Most classes with a full confusion matrix; with more, the most frequent confusions are listed."""
MAX_CONFUSIONS = 40
NO_CLASS = "(no class)"
_SHADES = 9


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix."""

    turns: int
    shade: int
    """0 to 9, by the share of the row."""
    right: bool


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: gold answers by predictions."""

    names: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class ClassReport:
    """The classes of one dataset."""

    title: str
    table: Table
    left_out: int
    """Number of classes that are not listed."""
    matrix: Matrix | None
    confusions: Table | None


def class_reports(run: Run) -> list[ClassReport]:
    """Return the per-class scores of each dataset in the last evaluation, where they were computed."""
    if not run.evaluations:
        return []
    last = run.evaluations[-1]
    return [
        _class_report(f"{source.source}, {last.name}", source.classes)
        for source in last.scores.sources
        if source.classes
    ]


def _class_report(title: str, found: list[ClassScore]) -> ClassReport:
    rows = [
        (c.name, f"{c.support:,}", f"{c.predicted:,}", _ratio(c.precision), _ratio(c.recall), _ratio(c.f1))
        for c in found[:MAX_CLASSES]
    ]
    head = ("Class", "Gold", "Predicted", "Precision", "Recall", "F1")
    few = len(found) <= MAX_MATRIX
    mistaken = [(gold, wrong or NO_CLASS, f"{turns:,}") for turns, gold, wrong in confusions(found)[:MAX_CONFUSIONS]]
    return ClassReport(
        title=title,
        table=Table(f"Classes of {title}", head, rows),
        left_out=max(0, len(found) - MAX_CLASSES),
        matrix=_matrix(found) if few else None,
        confusions=None if few else Table("The most frequent confusions", ("Gold", "Predicted", "Turns"), mistaken),
    )


def _matrix(found: list[ClassScore]) -> Matrix:
    names = [c.name for c in found]
    rows = []
    for c in found:
        counts = [(c.predicted_as.get(name, 0), name == c.name) for name in names] + [(c.no_class, False)]
        rows.append((c.name, [Cell(n, -(-n * _SHADES // c.support), right) for n, right in counts]))
    return Matrix([*names, NO_CLASS], rows)


def _ratio(value: float | None) -> str:
    return "-" if value is None else format_number(value)

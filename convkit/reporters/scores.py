"""Render evaluation scores as text tables."""

from collections.abc import Iterator, Sequence

from convkit.metrics.classes import ClassScore, confusions
from convkit.metrics.results import MetricScore, Scores, SourceScores
from convkit.reporters.table import table
from convkit.utils.text import printable

_MAX_LISTED = 10
_MAX_NAME = 40
_MAX_CLASSES = 200
_MAX_MATRIX = 12
"""Maximum number of classes for a confusion matrix; beyond it the most frequent confusions are listed."""
_MAX_CONFUSIONS = 20
_NO_CLASS = "(no class)"


def render(scores: Scores) -> str:
    """Render scores as text that ends with a newline."""
    lines = (line for source in scores.sources for line in _source(source, scores.confidence))
    return "".join(printable(line) + "\n" for line in lines)


def _source(source: SourceScores, confidence: float) -> Iterator[str]:
    yield f"{source.source}: {source.rows:,} rows, {source.turns:,} turns"
    unlabelled = [f"{turn.id} (turn {turn.turn})" for turn in source.unlabelled]
    yield from _listed("not scored, because they have no gold answer", unlabelled)
    yield from _listed("rows with a missing turn before their last one", source.incomplete)
    yield ""
    if source.metrics:
        yield from _lines(("metric", "value", f"{confidence:.0%} interval", "of"), list(map(_measure, source.metrics)))
        yield from (f"  {measure.name}: {measure.reason}" for measure in source.metrics if measure.reason)
        yield ""
    if source.classes:
        yield from _classes(source.classes)


def _listed(label: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
        yield f"  {label}: {len(names):,} ({', '.join(names[:_MAX_LISTED])}{more})"


def _measure(measure: MetricScore) -> tuple[str, ...]:
    interval = "-" if measure.low is None else f"{measure.low:.4f}-{measure.high:.4f}"
    return measure.name, _number(measure.value), interval, f"{measure.count:,}"


def _classes(classes: list[ClassScore]) -> Iterator[str]:
    rows = [
        (_short(c.name), f"{c.support:,}", f"{c.predicted:,}", _number(c.precision), _number(c.recall), _number(c.f1))
        for c in classes[:_MAX_CLASSES]
    ]
    yield from _lines(("class", "gold", "predicted", "precision", "recall", "F1"), rows)
    if len(classes) > _MAX_CLASSES:
        yield f"... and {len(classes) - _MAX_CLASSES:,} more classes; use --format json for all of them"
    yield ""
    yield from _matrix(classes) if len(classes) <= _MAX_MATRIX else _confusions(classes)


def _matrix(classes: list[ClassScore]) -> Iterator[str]:
    rows = [
        (_short(c.name), *(f"{c.predicted_as.get(other.name, 0):,}" for other in classes), f"{c.no_class:,}")
        for c in classes
    ]
    yield from _lines(("gold \\ predicted", *(_short(c.name) for c in classes), _NO_CLASS), rows)
    yield ""


def _confusions(classes: list[ClassScore]) -> Iterator[str]:
    shown = confusions(classes)[:_MAX_CONFUSIONS]
    if shown:
        rows = [(_short(gold), _short(as_ or _NO_CLASS), f"{n:,}") for n, gold, as_ in shown]
        yield from _lines(("gold", "predicted", "turns"), rows)
        yield ""


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in table(head, rows).split("\n")]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"

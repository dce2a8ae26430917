"""Render the comparison of two prediction files as text tables."""

from collections.abc import Iterator

from convkit.metrics.results import Comparison, MetricDifference, ScoredItem, SourceComparison
from convkit.reporters.table import table
from convkit.utils.text import printable

_MAX_LISTED = 10
_TESTS = {"sign": "exact sign test", "bootstrap": "paired bootstrap", None: "-"}


def render(comparison: Comparison) -> str:
    """Render a comparison as text that ends with a newline."""
    lines = (line for source in comparison.sources for line in _source(source, comparison.confidence))
    return "".join(printable(line) + "\n" for line in lines)


def _source(source: SourceComparison, confidence: float) -> Iterator[str]:
    yield f"{source.source}: {source.rows:,} rows, {source.turns:,} turns in both files"
    if source.unlabelled:
        yield f"  not compared, because they have no gold answer: {source.unlabelled:,}"
    yield ""
    interval = f"{confidence:.0%} interval"
    head = ("metric", "baseline", "value", "difference", interval, "won", "lost", "of", "p", "test")
    yield from (f"  {line}" for line in table(head, list(map(_cells, source.metrics))).split("\n"))
    yield from (f"  {metric.name}: {metric.reason}" for metric in source.metrics if metric.reason)
    yield ""
    for metric in source.metrics:
        for outcome, items in (("won", metric.won), ("lost", metric.lost)):
            if items:
                yield f"  {metric.name} {outcome}: {_listed(items)}"
    yield ""


def _cells(metric: MetricDifference) -> tuple[str, ...]:
    difference = "-" if metric.difference is None else f"{metric.difference:+.4f}"
    interval = "-" if metric.low is None else f"{metric.low:+.4f} to {metric.high:+.4f}"
    won, lost = ("-" if items is None else f"{len(items):,}" for items in (metric.won, metric.lost))
    values = ("-" if value is None else f"{value:.4f}" for value in (metric.baseline, metric.value))
    test = (f"{metric.count:,}", _p(metric.p_value), _TESTS[metric.test])
    return metric.name, *values, difference, interval, won, lost, *test


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _listed(items: list[ScoredItem]) -> str:
    names = [item.id if item.turn is None else f"{item.id} (turn {item.turn})" for item in items[:_MAX_LISTED]]
    more = f" and {len(items) - _MAX_LISTED:,} more" if len(items) > _MAX_LISTED else ""
    return ", ".join(names) + more

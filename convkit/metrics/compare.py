"""Compare the predictions of two models on the same turns: wins, losses and significance.

Scores are paired by turn, and both models share each bootstrap resample. Questions that are difficult for both models
therefore do not hide their difference.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from convkit.errors import ConvkitError
from convkit.metrics import statistics
from convkit.metrics.options import CLASSES, ScoreOptions, check_metric_names
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import Comparison, MetricDifference, ScoredItem, SourceComparison
from convkit.metrics.score import MetricData, NotComputable, group_by_source, metric_data
from convkit.metrics.statistics import CONFIDENCE

if TYPE_CHECKING:
    from convkit.metrics.statistics import Weights

_SAME = ("gold", "answers", "group", "sentence_id")
"""Fields that come from the row, and must be equal in both predictions of a turn."""


def compare(baseline: Sequence[Prediction], predictions: Sequence[Prediction], options: ScoreOptions) -> Comparison:
    """Compare predictions with those of a baseline.

    Args:
        baseline: ordered by id and turn.
        predictions: of the same turns, in the same order.
        options: of `convkit score`.

    Raises:
        ConvkitError: the turns differ, a metric does not exist, is a table, or needs a package that is not installed.
    """
    check_metric_names(options)
    if CLASSES in options.metrics:
        raise ConvkitError(f"The metric {CLASSES!r} is a table and cannot be compared. Leave it out of --metrics.")
    _check_same_turns(baseline, predictions)
    ours = group_by_source(predictions)
    sources = [_source(name, theirs, ours[name], options) for name, theirs in group_by_source(baseline).items()]
    complete = not any(source.unlabelled for source in sources)
    if options.metrics:
        complete = complete and not any(metric.reason for source in sources for metric in source.metrics)
    return Comparison(
        confidence=CONFIDENCE, resamples=options.resamples, seed=options.seed, complete=complete, sources=sources
    )


def _check_same_turns(baseline: Sequence[Prediction], predictions: Sequence[Prediction]) -> None:
    """Raise ConvkitError unless both have the same turns with the same answers."""
    theirs, ours = ({(p.source, p.id, p.turn): p for p in found} for found in (baseline, predictions))
    for name, alone in (("the baseline", theirs.keys() - ours), ("the predictions", ours.keys() - theirs)):
        if alone:
            source, id, turn = min(alone)
            raise ConvkitError(
                f"{len(alone):,} turns are only in {name}, such as turn {turn} of {id!r} of {source!r}. Compare "
                "predictions of the same split, with the same --limit."
            )
    for key, prediction in ours.items():
        if changed := [name for name in _SAME if getattr(theirs[key], name) != getattr(prediction, name)]:
            source, id, turn = key
            raise ConvkitError(
                f"Turn {turn} of {id!r} of {source!r} has different {changed[0]} in the baseline and in the "
                "predictions. Compare predictions of the same dataset."
            )


def _source(
    name: str, baseline: list[Prediction], predictions: list[Prediction], options: ScoreOptions
) -> SourceComparison:
    theirs, ours = ([p for p in found if p.accepted] for found in (baseline, predictions))
    metrics = [metric for metric in dict.fromkeys(options.metrics_of(name)) if metric != CLASSES]
    return SourceComparison(
        source=name,
        rows=len({p.id for p in predictions}),
        turns=len(predictions),
        unlabelled=len(predictions) - len(ours),
        metrics=[_difference(metric, theirs, ours, options) for metric in metrics],
    )


def _difference(
    metric: str, baseline: list[Prediction], predictions: list[Prediction], options: ScoreOptions
) -> MetricDifference:
    try:
        theirs, ours = (metric_data(metric, found, options) for found in (baseline, predictions))
    except NotComputable as error:
        names = ("baseline", "value", "difference", "low", "high", "test", "p_value", "won", "lost")
        return MetricDifference(name=metric, count=0, reason=str(error), **dict.fromkeys(names))
    count = len(ours.clusters)
    before, value = (statistics.unweighted(sample.statistic, count) for sample in (theirs, ours))
    spread = statistics.bootstrap(_difference_statistic(ours, theirs), ours.clusters, options.resamples, options.seed)
    low, high = statistics.percentile_interval(spread) or (None, None)
    differences = [new - old for new, old in zip(ours.values, theirs.values, strict=True)]
    test: Literal["sign", "bootstrap"] = "bootstrap"
    p_value = statistics.bootstrap_test(spread)
    if all(isinstance(score, bool) for score in ours.values) and differences:
        test, p_value = "sign", statistics.sign_test(differences, ours.clusters)
    return MetricDifference(
        name=metric,
        baseline=before,
        value=value,
        difference=value - before,
        low=low,
        high=high,
        test=test,
        p_value=p_value,
        count=count,
        won=_items(ours, differences, 1),
        lost=_items(ours, differences, -1),
        reason=None,
    )


def _difference_statistic(ours: MetricData, theirs: MetricData) -> statistics.Statistic:
    def difference(weights: "Weights") -> float:
        return ours.statistic(weights) - theirs.statistic(weights)

    return difference


def _items(sample: MetricData, differences: Sequence[float], sign: int) -> list[ScoredItem] | None:
    """Return the items whose difference has this sign; None if items have no score of their own."""
    if not sample.items:
        return None
    return [item for item, difference in zip(sample.items, differences, strict=True) if sign * difference > 0]

"""Score predictions: each dataset with its default metrics, or with the requested ones.

Every turn with a gold answer is scored. Turns that cannot be scored are counted and listed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from convkit.metrics import statistics
from convkit.metrics.answers import anls, exact_match, normalize
from convkit.metrics.classes import class_scores
from convkit.metrics.options import CLASSES, ScoreOptions, check_metric_names
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import MetricScore, ScoredItem, Scores, SourceScores, TurnAddress
from convkit.metrics.statistics import CONFIDENCE, Statistic


@dataclass(frozen=True)
class MetricData:
    """The data that a metric is computed from."""

    statistic: Statistic
    clusters: Sequence[Hashable]
    """The bootstrap cluster of each item."""
    items: Sequence[ScoredItem] = ()
    """The addresses of the items, if each has a score of its own."""
    values: Sequence[float] = ()
    """The scores of the items, whose mean is the statistic; bool if items are right or wrong."""


class NotComputable(Exception):
    """A metric cannot be computed from the predictions; the message gives the reason."""


def score(predictions: Iterable[Prediction], options: ScoreOptions = ScoreOptions()) -> Scores:
    """Score the predictions of each dataset.

    Raises:
        ConvkitError: a metric does not exist, or needs a package that is not installed.
    """
    check_metric_names(options)
    sources = [_source(name, found, options) for name, found in group_by_source(predictions).items()]
    complete = not any(source.unlabelled or source.incomplete for source in sources)
    if options.metrics:
        complete = complete and not any(measure.reason for source in sources for measure in source.metrics)
    return Scores(
        confidence=CONFIDENCE, resamples=options.resamples, seed=options.seed, complete=complete, sources=sources
    )


def group_by_source(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """Return the predictions of each dataset, ordered by the name of the dataset."""
    found: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        found[prediction.source].append(prediction)
    return {name: found[name] for name in sorted(found)}


def _source(name: str, predictions: list[Prediction], options: ScoreOptions) -> SourceScores:
    labelled = [prediction for prediction in predictions if prediction.accepted]
    turns: dict[str, set[int]] = defaultdict(set)
    for prediction in predictions:
        turns[prediction.id].add(prediction.turn)
    metrics = dict.fromkeys(options.metrics_of(name))
    table = class_scores((p.label, p.prediction) for p in labelled) if CLASSES in metrics else None
    return SourceScores(
        source=name,
        rows=len(turns),
        turns=len(predictions),
        unlabelled=[TurnAddress(id=p.id, turn=p.turn) for p in predictions if not p.accepted],
        incomplete=[row for row, found in turns.items() if len(found) <= max(found)],
        metrics=[_measure(metric, labelled, options) for metric in metrics if metric != CLASSES],
        classes=table,
    )


def _measure(name: str, labelled: list[Prediction], options: ScoreOptions) -> MetricScore:
    try:
        data = metric_data(name, labelled, options)
    except NotComputable as error:
        return MetricScore(name=name, value=None, low=None, high=None, count=0, reason=str(error))
    count = len(data.clusters)
    value = statistics.unweighted(data.statistic, count)
    low, high = statistics.confidence_interval(data.statistic, data.clusters, options.resamples, options.seed) or (
        None,
        None,
    )
    return MetricScore(name=name, value=value, low=low, high=high, count=count, reason=None)


def metric_data(metric: str, labelled: list[Prediction], options: ScoreOptions) -> MetricData:
    """Return the data for a metric other than `CLASSES`.

    Raises:
        NotComputable: the predictions lack what the metric needs.
    """
    if not labelled:
        raise NotComputable("no turn has a gold answer")
    return _METRIC_FUNCTIONS[metric](labelled, options)


def _accuracy(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    return _turn_scores(predictions, [exact_match(p.prediction, p.accepted) for p in predictions])


def _majority(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    """Return the majority baseline: the accuracy of the best constant answer."""
    accepted = [set(map(normalize, p.accepted)) for p in predictions]
    counts = Counter(answer for answers in accepted for answer in answers)
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return MetricData(statistics.mean([best in answers for answers in accepted]), [p.cluster for p in predictions])


def _anls(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    return _turn_scores(predictions, [anls(p.prediction, p.accepted) for p in predictions])


def _turn_scores(predictions: list[Prediction], values: Sequence[float]) -> MetricData:
    items = [ScoredItem(id=p.id, turn=p.turn) for p in predictions]
    return MetricData(statistics.mean(values), [p.cluster for p in predictions], items, values)


def _consistency(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    """Return NLVR2 consistency: the share of statements that are answered correctly for all their image pairs."""
    statements: dict[str, list[Prediction]] = defaultdict(list)
    for prediction, statement in zip(predictions, _values_of_all_turns("sentence_id", predictions), strict=True):
        statements[statement].append(prediction)
    consistent = [all(exact_match(p.prediction, p.accepted) for p in turns) for turns in statements.values()]
    items = [ScoredItem(id=statement, turn=None) for statement in statements]
    return MetricData(
        statistics.mean(consistent), [turns[0].cluster for turns in statements.values()], items, consistent
    )


def _auroc(predictions: list[Prediction], options: ScoreOptions) -> MetricData:
    scores = _values_of_all_turns("score", predictions)
    labels = [normalize(prediction.label) for prediction in predictions]
    kinds = sorted(set(labels))
    if len(kinds) != 2:
        raise NotComputable(f"there must be two different gold answers, not {len(kinds)}")
    positive = set(map(normalize, options.positive)).intersection(kinds)
    if len(positive) != 1:
        raise NotComputable(f"set --positive to the positive gold answer, {kinds[0]!r} or {kinds[1]!r}")
    return MetricData(
        statistics.auroc([label in positive for label in labels], scores), [p.cluster for p in predictions]
    )


def _values_of_all_turns(key: str, predictions: list[Prediction]) -> list[Any]:
    """Return a value that a metric needs of every turn; computing it on a subset would be a different metric."""
    values = [getattr(prediction, key) for prediction in predictions]
    if missing := values.count(None):
        first = predictions[values.index(None)]
        raise NotComputable(
            f"{missing:,} of {len(values):,} turns have no {key}, such as turn {first.turn} of {first.id}"
        )
    return values


_METRIC_FUNCTIONS: dict[str, Callable[[list[Prediction], ScoreOptions], MetricData]] = {
    "accuracy": _accuracy,
    "majority": _majority,
    "anls": _anls,
    "consistency": _consistency,
    "auroc": _auroc,
}

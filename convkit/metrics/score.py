"""Scores predictions: each data set by its own metrics, or by those asked for.

Every turn that has a gold answer is scored; whatever cannot be is counted and named.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from convkit.errors import ConvkitError
from convkit.metrics import statistics
from convkit.metrics.answers import anls, exact_match, normalize
from convkit.metrics.classes import class_scores
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import MetricScore, ScoredItem, Scores, SourceScores, TurnAddress
from convkit.metrics.statistics import CONFIDENCE, Statistic

DEFAULT_POSITIVE = ("yes", "true")
"""The answers that AUROC takes for positive."""
METRICS_BY_SOURCE = {
    "ucf101": ("accuracy", "classes"),
    "easy-vqa": ("accuracy", "classes"),
    "docvqa": ("anls", "accuracy"),
    "nlvr2": ("accuracy", "consistency"),
    "hateful-memes": ("accuracy", "auroc"),
    "hateful_memes": ("accuracy", "auroc"),  # as The Cauldron spells it
}
DEFAULT_METRICS = ("accuracy",)


@dataclass(frozen=True)
class ScoreOptions:
    """How predictions are scored."""

    metrics: tuple[str, ...] = ()
    """Names of METRICS for every data set; none: those of METRICS_BY_SOURCE, or else DEFAULT_METRICS."""
    positive: tuple[str, ...] = DEFAULT_POSITIVE
    """The answers that AUROC takes for positive, compared as for accuracy."""
    resamples: int = 1000
    """Of the bootstrap; 0: no confidence intervals."""
    seed: int = 0

    def metrics_of(self, source: str) -> tuple[str, ...]:
        """The metrics of a data set."""
        return self.metrics or METRICS_BY_SOURCE.get(source, DEFAULT_METRICS)


@dataclass(frozen=True)
class MetricData:
    """What a metric is computed from."""

    statistic: Statistic
    clusters: Sequence[Hashable]
    """For each item that the statistic weighs, what it is drawn with."""
    items: Sequence[ScoredItem] = ()
    """Their addresses, where each has a score of its own."""
    values: Sequence[float] = ()
    """These scores, of which the statistic is the mean; bools where an item is right or wrong."""


class NotComputable(Exception):
    """The predictions do not tell a metric; the message says why."""


def score(predictions: Iterable[Prediction], options: ScoreOptions = ScoreOptions()) -> Scores:
    """Score the predictions of each data set.

    Raises:
        ConvkitError: there is no such metric, or a package that one needs is missing.
    """
    check_metric_names(options)
    sources = [_source(name, found, options) for name, found in group_by_source(predictions).items()]
    complete = not any(source.unlabelled or source.incomplete for source in sources)
    if options.metrics:
        complete = complete and not any(measure.reason for source in sources for measure in source.metrics)
    return Scores(
        confidence=CONFIDENCE, resamples=options.resamples, seed=options.seed, complete=complete, sources=sources
    )


def check_metric_names(options: ScoreOptions) -> None:
    """Raises ConvkitError where there is no such metric."""
    if unknown := [name for name in options.metrics if name not in METRICS]:
        raise ConvkitError(f"There is no metric {unknown[0]!r}. Choose from: {', '.join(METRICS)}.")


def group_by_source(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The predictions of each data set, in the order of their names."""
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
        sample = metric_data(name, labelled, options)
    except NotComputable as error:
        return MetricScore(name=name, value=None, low=None, high=None, count=0, reason=str(error))
    count = len(sample.clusters)
    value = statistics.unweighted(sample.statistic, count)
    low, high = statistics.confidence_interval(sample.statistic, sample.clusters, options.resamples, options.seed) or (
        None,
        None,
    )
    return MetricScore(name=name, value=value, low=low, high=high, count=count, reason=None)


def metric_data(metric: str, labelled: list[Prediction], options: ScoreOptions) -> MetricData:
    """What a metric, but for CLASSES, is computed from; raises NotComputable."""
    if not labelled:
        raise NotComputable("no turn has a gold answer")
    return _SAMPLERS[metric](labelled, options)


def _accuracy(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    return _of_turns(predictions, [exact_match(p.prediction, p.accepted) for p in predictions])


def _majority(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    """What the best answer would come to that is the same to every question: what accuracy must beat."""
    accepted = [set(map(normalize, p.accepted)) for p in predictions]
    counts = Counter(answer for answers in accepted for answer in answers)
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return MetricData(statistics.mean([best in answers for answers in accepted]), [p.cluster for p in predictions])


def _anls(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    return _of_turns(predictions, [anls(p.prediction, p.accepted) for p in predictions])


def _of_turns(predictions: list[Prediction], values: Sequence[float]) -> MetricData:
    items = [ScoredItem(id=p.id, turn=p.turn) for p in predictions]
    return MetricData(statistics.mean(values), [p.cluster for p in predictions], items, values)


def _consistency(predictions: list[Prediction], _: ScoreOptions) -> MetricData:
    """NLVR2's: the share of statements that are judged rightly of every pair of images they are shown with."""
    statements: dict[str, list[Prediction]] = defaultdict(list)
    for prediction, statement in zip(predictions, _all("sentence_id", predictions), strict=True):
        statements[statement].append(prediction)
    consistent = [all(exact_match(p.prediction, p.accepted) for p in shown) for shown in statements.values()]
    items = [ScoredItem(id=statement, turn=None) for statement in statements]
    return MetricData(
        statistics.mean(consistent), [shown[0].cluster for shown in statements.values()], items, consistent
    )


def _auroc(predictions: list[Prediction], options: ScoreOptions) -> MetricData:
    scores = _all("score", predictions)
    labels = [normalize(prediction.label) for prediction in predictions]
    kinds = sorted(set(labels))
    if len(kinds) != 2:
        raise NotComputable(f"the gold answers must be of two kinds, and are of {len(kinds)}")
    positive = set(map(normalize, options.positive)).intersection(kinds)
    if len(positive) != 1:
        raise NotComputable(f"say with --positive which gold answer is positive, {kinds[0]!r} or {kinds[1]!r}")
    return MetricData(
        statistics.auroc([label in positive for label in labels], scores), [p.cluster for p in predictions]
    )


def _all(key: str, predictions: list[Prediction]) -> list[Any]:
    """A value that every turn must have for a metric: one over those that happen to have it would be another metric."""
    values = [getattr(prediction, key) for prediction in predictions]
    if missing := values.count(None):
        first = predictions[values.index(None)]
        raise NotComputable(
            f"{missing:,} of {len(values):,} turns have no {key}, such as turn {first.turn} of {first.id}"
        )
    return values


CLASSES = "classes"
"""A table, where the other metrics are one number each."""
_SAMPLERS: dict[str, Callable[[list[Prediction], ScoreOptions], MetricData]] = {
    "accuracy": _accuracy,
    "majority": _majority,
    "anls": _anls,
    "consistency": _consistency,
    "auroc": _auroc,
}
METRICS = (*_SAMPLERS, CLASSES)

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
from convkit.metrics.comparison import Item
from convkit.metrics.predictions import Prediction
from convkit.metrics.scores import Measure, Scores, SourceScores, Turn
from convkit.metrics.statistics import CONFIDENCE, Statistic

POSITIVE = ("yes", "true")
"""The answers that AUROC takes for positive."""
BY_SOURCE = {
    "ucf101": ("accuracy", "classes"),
    "easy-vqa": ("accuracy", "classes"),
    "docvqa": ("anls", "accuracy"),
    "nlvr2": ("accuracy", "consistency"),
    "hateful-memes": ("accuracy", "auroc"),
    "hateful_memes": ("accuracy", "auroc"),  # as The Cauldron spells it
}
ELSEWHERE = ("accuracy",)


@dataclass(frozen=True)
class Options:
    """How predictions are scored."""

    metrics: tuple[str, ...] = ()
    """Names of METRICS for every data set; none: those of BY_SOURCE, or else ELSEWHERE."""
    positive: tuple[str, ...] = POSITIVE
    """The answers that AUROC takes for positive, compared as for accuracy."""
    resamples: int = 1000
    """Of the bootstrap; 0: no confidence intervals."""
    seed: int = 0

    def metrics_of(self, source: str) -> tuple[str, ...]:
        """The metrics of a data set."""
        return self.metrics or BY_SOURCE.get(source, ELSEWHERE)


@dataclass(frozen=True)
class Sample:
    """What a metric is computed from."""

    statistic: Statistic
    clusters: Sequence[Hashable]
    """For each item that the statistic weighs, what it is drawn with."""
    items: Sequence[Item] = ()
    """Their addresses, where each has a score of its own."""
    values: Sequence[float] = ()
    """These scores, of which the statistic is the mean; bools where an item is right or wrong."""


class Unmeasurable(Exception):
    """The predictions do not tell a metric; the message says why."""


def score(predictions: Iterable[Prediction], options: Options = Options()) -> Scores:
    """Score the predictions of each data set.

    Raises:
        ConvkitError: there is no such metric, or a package that one needs is missing.
    """
    refuse_unknown(options)
    sources = [_source(name, found, options) for name, found in by_source(predictions).items()]
    complete = not any(source.unlabelled or source.incomplete for source in sources)
    if options.metrics:
        complete = complete and not any(measure.reason for source in sources for measure in source.metrics)
    return Scores(
        confidence=CONFIDENCE, resamples=options.resamples, seed=options.seed, complete=complete, sources=sources
    )


def refuse_unknown(options: Options) -> None:
    """Raises ConvkitError where there is no such metric."""
    if unknown := [name for name in options.metrics if name not in METRICS]:
        raise ConvkitError(f"There is no metric {unknown[0]!r}. Choose from: {', '.join(METRICS)}.")


def by_source(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The predictions of each data set, in the order of their names."""
    found: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        found[prediction.source].append(prediction)
    return {name: found[name] for name in sorted(found)}


def _source(name: str, predictions: list[Prediction], options: Options) -> SourceScores:
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
        unlabelled=[Turn(id=p.id, turn=p.turn) for p in predictions if not p.accepted],
        incomplete=[row for row, found in turns.items() if len(found) <= max(found)],
        metrics=[_measure(metric, labelled, options) for metric in metrics if metric != CLASSES],
        classes=table,
    )


def _measure(name: str, labelled: list[Prediction], options: Options) -> Measure:
    try:
        sample = sample_of(name, labelled, options)
    except Unmeasurable as error:
        return Measure(name=name, value=None, low=None, high=None, count=0, reason=str(error))
    count = len(sample.clusters)
    value = statistics.plain(sample.statistic, count)
    low, high = statistics.interval(sample.statistic, sample.clusters, options.resamples, options.seed) or (None, None)
    return Measure(name=name, value=value, low=low, high=high, count=count, reason=None)


def sample_of(metric: str, labelled: list[Prediction], options: Options) -> Sample:
    """What a metric, but for CLASSES, is computed from; raises Unmeasurable."""
    if not labelled:
        raise Unmeasurable("no turn has a gold answer")
    return _SAMPLERS[metric](labelled, options)


def _accuracy(predictions: list[Prediction], _: Options) -> Sample:
    return _of_turns(predictions, [exact_match(p.prediction, p.accepted) for p in predictions])


def _majority(predictions: list[Prediction], _: Options) -> Sample:
    """What the best answer would come to that is the same to every question: what accuracy must beat."""
    accepted = [set(map(normalize, p.accepted)) for p in predictions]
    counts = Counter(answer for answers in accepted for answer in answers)
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return Sample(statistics.mean([best in answers for answers in accepted]), [p.cluster for p in predictions])


def _anls(predictions: list[Prediction], _: Options) -> Sample:
    return _of_turns(predictions, [anls(p.prediction, p.accepted) for p in predictions])


def _of_turns(predictions: list[Prediction], values: Sequence[float]) -> Sample:
    items = [Item(id=p.id, turn=p.turn) for p in predictions]
    return Sample(statistics.mean(values), [p.cluster for p in predictions], items, values)


def _consistency(predictions: list[Prediction], _: Options) -> Sample:
    """NLVR2's: the share of statements that are judged rightly of every pair of images they are shown with."""
    statements: dict[str, list[Prediction]] = defaultdict(list)
    for prediction, statement in zip(predictions, _all("sentence_id", predictions), strict=True):
        statements[statement].append(prediction)
    consistent = [all(exact_match(p.prediction, p.accepted) for p in shown) for shown in statements.values()]
    items = [Item(id=statement, turn=None) for statement in statements]
    return Sample(statistics.mean(consistent), [shown[0].cluster for shown in statements.values()], items, consistent)


def _auroc(predictions: list[Prediction], options: Options) -> Sample:
    scores = _all("score", predictions)
    labels = [normalize(prediction.label) for prediction in predictions]
    kinds = sorted(set(labels))
    if len(kinds) != 2:
        raise Unmeasurable(f"the gold answers must be of two kinds, and are of {len(kinds)}")
    positive = set(map(normalize, options.positive)).intersection(kinds)
    if len(positive) != 1:
        raise Unmeasurable(f"say with --positive which gold answer is positive, {kinds[0]!r} or {kinds[1]!r}")
    return Sample(statistics.auroc([label in positive for label in labels], scores), [p.cluster for p in predictions])


def _all(key: str, predictions: list[Prediction]) -> list[Any]:
    """A value that every turn must have for a metric: one over those that happen to have it would be another metric."""
    values = [getattr(prediction, key) for prediction in predictions]
    if missing := values.count(None):
        first = predictions[values.index(None)]
        raise Unmeasurable(
            f"{missing:,} of {len(values):,} turns have no {key}, such as turn {first.turn} of {first.id}"
        )
    return values


CLASSES = "classes"
"""A table, where the other metrics are one number each."""
_SAMPLERS: dict[str, Callable[[list[Prediction], Options], Sample]] = {
    "accuracy": _accuracy,
    "majority": _majority,
    "anls": _anls,
    "consistency": _consistency,
    "auroc": _auroc,
}
METRICS = (*_SAMPLERS, CLASSES)

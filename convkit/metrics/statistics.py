"""Numbers over many turns, as functions of how often each turn counts, and their confidence intervals.

A statistic takes weights, one for each item, and gives a number, or NaN where there is none: a score is that of equal
weights, and a resample of the bootstrap is another set of weights.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import exp, lgamma, log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = NDArray[Any]
    Values = NDArray[Any]

Statistic = Callable[["Weights"], float]

CONFIDENCE = 0.95


def mean(values: Sequence[float]) -> Statistic:
    """The weighted mean."""
    import numpy as np

    array = np.asarray(values, float)
    return lambda weights: float(weights @ array / weights.sum())


def auroc(positive: Sequence[bool], scores: Sequence[float]) -> Statistic:
    """The area under the ROC curve: how probable it is that a positive item has a higher score than a negative one.

    An equal score counts as half. NaN where all items (of a weight above 0) are of one class.
    """
    import numpy as np

    ranks = np.unique(np.asarray(scores, float), return_inverse=True)[1]
    is_positive = np.asarray(positive, bool)

    def area(weights: "Weights") -> float:
        positives = np.bincount(ranks, weights * is_positive)
        negatives = np.bincount(ranks, weights * ~is_positive)
        pairs = positives.sum() * negatives.sum()
        if not pairs:
            return float("nan")
        below = np.cumsum(negatives) - negatives
        return float(positives @ (below + negatives / 2) / pairs)

    return area


def unweighted(statistic: Statistic, items: int) -> float:
    """The statistic where every item counts once."""
    import numpy as np

    return statistic(np.ones(items))


def confidence_interval(
    statistic: Statistic, clusters: Sequence[Hashable], resamples: int, seed: int
) -> tuple[float, float] | None:
    """A 95 % confidence confidence_interval by the percentile bootstrap, see `bootstrap` and `percentile_interval`."""
    return percentile_interval(bootstrap(statistic, clusters, resamples, seed))


def bootstrap(statistic: Statistic, clusters: Sequence[Hashable], resamples: int, seed: int) -> "Values":
    """The statistic where whole clusters are drawn with replacement.

    Args:
        clusters: for each item the cluster that it belongs to. Items that share an image or a row are not independent:
            drawn one by one, they would make the confidence_interval too narrow.
        resamples: how often they are drawn. Resamples in which the statistic is NaN are left out.
        seed: the same seed gives the same values.

    Returns:
        (resamples) at most; none where there are fewer than two clusters.
    """
    import numpy as np

    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    if len(numbers) < 2:
        return np.array([])
    cluster_of = np.array([numbers[cluster] for cluster in clusters])
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = np.bincount(random.integers(0, len(numbers), len(numbers)), minlength=len(numbers))
        found.append(statistic(drawn[cluster_of]))
    return np.array([value for value in found if value == value])


def percentile_interval(values: "Values") -> tuple[float, float] | None:
    """The ends of the 95 % of resamples in the percentile_interval; None where there are no resamples."""
    import numpy as np

    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_test(differences: "Values") -> float | None:
    """How probable bootstrap differences hold one as large where there is none: two-sided, and never 0.

    Returns:
        The p-value, at least 2 / (resamples + 1); None where there are no resamples.
    """
    if not len(differences):
        return None
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))


def sign_test(differences: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """The exact two-sided sign test of paired scores, over clusters: each counts by the sign of its sum.

    Of right and wrong answers that are a cluster each, it is McNemar's exact test. Items of one cluster are not
    independent: counted one by one, they would make a difference look surer than it is.

    Returns:
        The p-value; 1 where nothing differs.
    """
    sums: Counter[Hashable] = Counter()
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] += difference  # type: ignore[assignment]
    won, lost = (sum(sign * total > 0 for total in sums.values()) for sign in (1, -1))
    n = won + lost
    tail = (exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2)) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * sum(tail))

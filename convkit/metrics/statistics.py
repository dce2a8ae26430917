"""Weighted statistics, bootstrap confidence intervals and significance tests.

A statistic maps weights, one per item, to a number, or to NaN if it is undefined. The score itself uses equal weights;
each bootstrap resample is another set of weights.
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
    """Return the weighted mean of values as a statistic."""
    import numpy as np

    array = np.asarray(values, float)
    return lambda weights: float(weights @ array / weights.sum())


def auroc(positive: Sequence[bool], scores: Sequence[float]) -> Statistic:
    """Return the area under the ROC curve as a statistic.

    This is the probability that a positive item has a higher score than a negative one; ties count as half. It is NaN
    if all items with a weight above 0 belong to one class.
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
    """Return the value of a statistic for equal weights."""
    import numpy as np

    return statistic(np.ones(items))


def confidence_interval(
    statistic: Statistic, clusters: Sequence[Hashable], resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval, see `bootstrap` and `percentile_interval`."""
    return percentile_interval(bootstrap(statistic, clusters, resamples, seed))


def bootstrap(statistic: Statistic, clusters: Sequence[Hashable], resamples: int, seed: int) -> "Values":
    """Return the values of a statistic on bootstrap resamples of whole clusters.

    Args:
        statistic: maps weights to a number.
        clusters: the cluster of each item. Items that share an image or a row are not independent; resampling them
            one by one would make the interval too narrow.
        resamples: number of resamples. Those in which the statistic is NaN are dropped.
        seed: random seed.

    Returns:
        At most (resamples) values; none if there are fewer than two clusters.
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
    """Return the ends of the central 95 % of resampled values; None if there are none."""
    import numpy as np

    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_test(differences: "Values") -> float | None:
    """Return the two-sided p-value of a difference from its resampled values.

    Returns:
        At least 2 / (resamples + 1), never 0; None if there are no resamples.
    """
    if not len(differences):
        return None
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))


def sign_test(differences: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Return the p-value of the exact two-sided sign test of paired scores, over clusters.

    Each cluster counts by the sign of the sum of its differences. If each answer is a cluster of its own, this is
    McNemar's exact test. Items of a cluster are not independent: counting them one by one would give too small
    p-values.

    Returns:
        The p-value; 1 if nothing differs.
    """
    sums: Counter[Hashable] = Counter()
    for cluster, difference in zip(clusters, differences, strict=True):
        sums[cluster] += difference  # type: ignore[assignment]
    won, lost = (sum(sign * total > 0 for total in sums.values()) for sign in (1, -1))
    n = won + lost
    tail = (exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2)) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * sum(tail))

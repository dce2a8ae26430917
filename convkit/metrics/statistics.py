"""Numbers over many turns, as functions of how often each turn counts, and their confidence intervals.

A statistic takes weights, one for each item, and gives a number, or NaN where there is none: a score is that of equal
weights, and a resample of the bootstrap is another set of weights.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = NDArray[Any]

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


def plain(statistic: Statistic, items: int) -> float:
    """The statistic where every item counts once."""
    import numpy as np

    return statistic(np.ones(items))


def interval(
    statistic: Statistic, clusters: Sequence[Hashable], resamples: int, seed: int
) -> tuple[float, float] | None:
    """A 95 % confidence interval by the percentile bootstrap: whole clusters are drawn with replacement.

    Args:
        clusters: for each item the cluster that it belongs to. Items that share an image or a row are not independent:
            drawn one by one, they would make the interval too narrow.
        resamples: how often they are drawn. Resamples in which the statistic is NaN are left out.
        seed: the same seed gives the same interval.

    Returns:
        The lower and the upper end; None where there are fewer than two clusters or no resamples.
    """
    import numpy as np

    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    if len(numbers) < 2:
        return None
    cluster_of = np.array([numbers[cluster] for cluster in clusters])
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = np.bincount(random.integers(0, len(numbers), len(numbers)), minlength=len(numbers))
        found.append(statistic(drawn[cluster_of]))
    values = np.array(found)[~np.isnan(found)] if found else np.array([])
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)

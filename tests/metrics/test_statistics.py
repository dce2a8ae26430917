"""AUROC against scikit-learn and examples; bootstrap intervals against the normal approximation."""

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from convkit.metrics.statistics import auroc, confidence_interval, mean, unweighted

FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Few different scores, so that ties are frequent, and any others.
SCORES = st.sampled_from([0.0, -0.0, 0.5, 0.7, 1.0, 1e-300]) | FINITE
ITEMS = st.lists(st.tuples(st.booleans(), SCORES, st.integers(0, 3)), min_size=2, max_size=30)


def area(items: list[tuple[bool, float]]) -> float:
    return unweighted(auroc([positive for positive, _ in items], [score for _, score in items]), len(items))


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1], [0.9], 0.0),
        ([0.5, 0.5], [0.5], 0.5),  # all tied
        ([0.5, 0.9], [0.5, 0.1], 0.875),  # one pair of four is tied
        ([0.5], [0.5, 0.5, 0.1, 0.9], 0.5),
    ],
)
def test_auroc_of_hand_computed_examples(positives: list[float], negatives: list[float], expected: float) -> None:
    assert area([(True, score) for score in positives] + [(False, score) for score in negatives]) == expected


@pytest.mark.parametrize("positive", [True, False])
def test_auroc_of_a_single_class_is_nan(positive: bool) -> None:
    assert math.isnan(area([(positive, 0.1), (positive, 0.9)]))


@settings(max_examples=1000)
@example([(False, -sys.float_info.max, 1), (True, 1e292, 1)])
@given(ITEMS)
def test_auroc_equals_that_of_scikit_learn(items: list[tuple[bool, float, int]]) -> None:
    positive, scores, _ = zip(*items, strict=True)
    assume(len(set(positive)) == 2)
    with np.errstate(over="ignore"):  # it only checks which score differences are not 0
        expected = roc_auc_score(positive, scores)
    assert area(list(zip(positive, scores, strict=True))) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=300)
@given(ITEMS)
def test_a_weight_equals_a_number_of_copies(items: list[tuple[bool, float, int]]) -> None:
    positive, scores, weights = zip(*items, strict=True)
    copies = [(p, score) for p, score, times in items for _ in range(times)]
    assume(len({p for p, _ in copies}) == 2)
    pairs = product([s for p, s in copies if p], [s for p, s in copies if not p])
    wins = [1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs]
    assert auroc(positive, scores)(np.array(weights)) == pytest.approx(sum(wins) / len(wins), abs=1e-12)
    share = sum(p for p, _ in copies) / len(copies)
    assert mean(positive)(np.array(weights)) == pytest.approx(share, abs=1e-12)


def test_the_interval_of_a_mean_matches_the_normal_approximation() -> None:
    values = [float(i % 4 == 0) for i in range(400)]
    found = confidence_interval(mean(values), range(len(values)), 4000, 0)
    assert found is not None
    error = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    centre = float(np.mean(values))
    assert list(found) == pytest.approx([centre - error, centre + error], abs=0.004)


def test_copies_within_a_cluster_do_not_narrow_the_interval() -> None:
    values = [float(i % 3 == 0) for i in range(60)]
    once = confidence_interval(mean(values), range(60), 500, 3)
    copied = confidence_interval(mean(values * 4), [*range(60)] * 4, 500, 3)
    separate = confidence_interval(mean(values * 4), range(240), 500, 3)
    assert once is not None and separate is not None
    assert copied == pytest.approx(once)
    assert separate[1] - separate[0] < 0.6 * (once[1] - once[0])


def test_the_seed_determines_the_interval() -> None:
    values = [float(i % 3 == 0) for i in range(60)]
    of_seed = [confidence_interval(mean(values), range(60), 50, seed) for seed in (0, 0, 1)]
    assert of_seed[0] == of_seed[1] != of_seed[2]


def test_there_is_no_interval_for_one_cluster_or_without_resamples() -> None:
    assert confidence_interval(mean([0.0, 1.0]), ["a", "a"], 100, 0) is None
    assert confidence_interval(mean([0.0, 1.0]), ["a", "b"], 0, 0) is None


def test_resamples_with_a_single_class_are_dropped() -> None:
    found = confidence_interval(auroc([True, False, False], [0.9, 0.1, 0.2]), range(3), 200, 0)
    assert found == (1.0, 1.0)
    assert confidence_interval(auroc([True, True], [0.9, 0.1]), range(2), 50, 0) is None

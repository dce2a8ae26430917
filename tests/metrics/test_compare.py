"""Comparison of two models: pairing, wins and losses, and significance against scipy."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest

from convkit.errors import ConvkitError
from convkit.metrics.compare import compare
from convkit.metrics.options import ScoreOptions
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import MetricDifference, ScoredItem
from convkit.metrics.score import score
from convkit.metrics.statistics import bootstrap_test, sign_test


def predicted(id: str, prediction: str, gold: str | None = "yes", **others: object) -> Prediction:
    fields = {"id": id, "source": "pets", "turn": 0, "prediction": prediction, "gold": gold, **others}
    return Prediction.model_validate_json(json.dumps({key: v for key, v in fields.items() if v is not None}))


def only(baseline: list[Prediction], predictions: list[Prediction], **options: Any) -> MetricDifference:
    (source,) = compare(baseline, predictions, ScoreOptions(**{"resamples": 0, **options})).sources
    (difference,) = source.metrics
    return difference


def right(*flags: int, **others: Any) -> list[Prediction]:
    return [predicted(f"r{number}", "yes" if flag else "no", **others) for number, flag in enumerate(flags)]


def test_wins_and_losses_are_listed_and_values_equal_those_of_score() -> None:
    baseline, predictions = right(1, 1, 0, 0, 0), right(0, 1, 1, 1, 0)
    found = only(baseline, predictions)
    assert (found.won, found.lost) == (
        [ScoredItem(id="r2", turn=0), ScoredItem(id="r3", turn=0)],
        [ScoredItem(id="r0", turn=0)],
    )
    assert (found.count, found.test) == (5, "sign")
    assert found.difference == pytest.approx(0.2)
    values = [score(each, ScoreOptions(resamples=0)).sources[0].metrics[0].value for each in (baseline, predictions)]
    assert [found.baseline, found.value] == values


def test_the_interval_covers_the_paired_difference() -> None:
    hard = [number % 2 for number in range(200)]  # questions are difficult for both models
    baseline = right(*hard)
    better = right(*(flag or number % 20 == 0 for number, flag in enumerate(hard)))
    found = only(baseline, better, resamples=500)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < 0.05 < found.high < 0.1  # unpaired, the interval would hold 0: it were 0.2 wide
    assert only(better, baseline, resamples=500).high == pytest.approx(-found.low, abs=0.01)


def test_a_file_does_not_differ_from_itself() -> None:
    found = only(right(1, 0, 1), right(1, 0, 1), resamples=50)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert (found.won, found.lost) == ([], [])


def test_the_sign_test_is_exact() -> None:
    chance = random.Random(0)
    for _ in range(200):
        differences = [chance.choice([-1, 0, 0, 1]) for _ in range(chance.randrange(1, 400))]
        won, lost = differences.count(1), differences.count(-1)
        expected = binomtest(won, won + lost).pvalue if won + lost else 1
        assert sign_test(differences, range(len(differences))) == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_counts_a_group_once() -> None:
    assert sign_test([1, 1, 1, 1, 1, 1, 1, 1], ["a"] * 8) == 1
    assert sign_test([1, 1, -1], ["a", "a", "a"]) == sign_test([1], ["a"]) == 1
    assert sign_test([1] * 8, range(8)) == pytest.approx(2 / 2**8)
    baseline, predictions = ([*right(*[flag] * 8, group="film")] for flag in (0, 1))
    assert only(baseline, predictions).p_value == 1


def test_the_bootstrap_p_value_is_two_sided_and_never_zero() -> None:
    import numpy as np

    assert bootstrap_test(np.array([])) is None
    assert bootstrap_test(np.full(99, 0.5)) == bootstrap_test(np.full(99, -0.5)) == pytest.approx(0.02)
    assert bootstrap_test(np.zeros(99)) == 1


def test_fractional_scores_use_the_bootstrap_test() -> None:
    baseline = [predicted(f"r{number}", "abcdxy", "abcdef") for number in range(20)]
    predictions = [predicted(f"r{number}", "abcdex", "abcdef") for number in range(20)]
    found = only(baseline, predictions, metrics=("anls",), resamples=99)
    assert (found.test, len(found.won or [])) == ("bootstrap", 20)
    assert found.p_value == pytest.approx(0.02)


def test_consistency_is_compared_per_statement() -> None:
    baseline = right(1, 0, 1, sentence_id="s1")
    found = only(baseline, right(1, 1, 1, sentence_id="s1"), metrics=("consistency",))
    assert (found.baseline, found.value, found.won) == (0, 1, [ScoredItem(id="s1", turn=None)])


def test_auroc_has_no_wins() -> None:
    golds = ["yes", "no"] * 10
    baseline = [predicted(f"r{n}", "yes", gold, score=0.5) for n, gold in enumerate(golds)]
    predictions = [predicted(f"r{n}", "yes", gold, score=float(gold == "yes")) for n, gold in enumerate(golds)]
    found = only(baseline, predictions, metrics=("auroc",), resamples=99)
    assert (found.baseline, found.value, found.won, found.lost, found.test) == (0.5, 1, None, None, "bootstrap")


def test_a_metric_that_cannot_be_compared_has_a_reason() -> None:
    unlabelled = [predicted("r0", "yes", None)]
    result = compare(unlabelled, unlabelled, ScoreOptions())
    assert (result.complete, result.sources[0].unlabelled) == (False, 1)
    assert result.sources[0].metrics[0].reason == "no turn has a gold answer"
    result = compare(right(1), right(1), ScoreOptions(metrics=("auroc",)))
    assert not result.complete and "have no score" in str(result.sources[0].metrics[0].reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found[:-1], r"1 turns are only in the baseline, such as turn 0 of 'r2' of 'pets'"),
        (lambda found: [*found, predicted("r9", "no")], r"1 turns are only in the predictions, .* 'r9'"),
        (lambda found: [*found[:2], predicted("r2", "no", "no")], r"'r2' of 'pets' has different gold in the baseline"),
        (lambda found: [*found[:2], predicted("r2", "no", answers=["a"])], r"'r2' of 'pets' has different answers"),
    ],
)
def test_different_turns_are_an_error(change: Callable[[list[Prediction]], list[Prediction]], message: str) -> None:
    with pytest.raises(ConvkitError, match=message):
        compare(right(1, 1, 1), change(right(0, 0, 0)), ScoreOptions())


def test_the_classes_table_cannot_be_compared() -> None:
    with pytest.raises(ConvkitError, match="is a table"):
        compare(right(1), right(1), ScoreOptions(metrics=("classes",)))

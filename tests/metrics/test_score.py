"""Scores of datasets: default metrics, and that no turn is dropped silently."""

import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.converters import CONVERTERS
from convkit.errors import ConvkitError
from convkit.metrics.options import METRICS_BY_SOURCE, ScoreOptions
from convkit.metrics.predictions import Prediction
from convkit.metrics.results import MetricScore, Scores, TurnAddress
from convkit.metrics.score import score
from convkit.schema import Row


def predicted(id: str, prediction: str, gold: str | None = None, source: str = "pets", **others: object) -> Prediction:
    fields = {"id": id, "source": source, "turn": 0, "prediction": prediction, "gold": gold, **others}
    return Prediction.model_validate_json(
        json.dumps({key: value for key, value in fields.items() if value is not None})
    )


def measures(scores: Scores) -> dict[str, MetricScore]:
    (source,) = scores.sources
    return {measure.name: measure for measure in source.metrics}


def scored(predictions: Iterable[Prediction], *metrics: str, resamples: int = 0) -> dict[str, MetricScore]:
    return measures(score(predictions, ScoreOptions(metrics=metrics, resamples=resamples)))


@pytest.mark.parametrize(
    ("source", "metrics", "classes"),
    [
        ("ucf101", ["accuracy"], True),
        ("easy-vqa", ["accuracy"], True),
        ("docvqa", ["anls", "accuracy"], False),
        ("nlvr2", ["accuracy", "consistency"], False),
        ("hateful-memes", ["accuracy", "auroc"], False),
        ("hateful_memes", ["accuracy", "auroc"], False),
        ("pets", ["accuracy"], False),
    ],
)
def test_each_dataset_has_default_metrics(source: str, metrics: list[str], classes: bool) -> None:
    (scores,) = score([predicted("a", "Yes", "yes", source)], ScoreOptions(resamples=0)).sources
    assert [measure.name for measure in scores.metrics] == metrics
    assert (scores.classes is not None) == classes


def test_the_defaults_use_the_names_of_converters() -> None:
    assert set(METRICS_BY_SOURCE) - {"hateful_memes"} <= set(CONVERTERS)


def test_requested_metrics_replace_the_defaults() -> None:
    (scores,) = score([predicted("a", "cat", "cat", "nlvr2")], ScoreOptions(metrics=("classes", "anls"))).sources
    assert [measure.name for measure in scores.metrics] == ["anls"]
    assert scores.classes is not None
    with pytest.raises(
        ConvkitError, match=r"no metric .f1.\. Choose from: accuracy, majority, anls, consistency, auroc"
    ):
        score([], ScoreOptions(metrics=("accuracy", "f1")))


def test_each_dataset_is_scored_separately() -> None:
    scores = score([predicted("a", "cat", "cat"), predicted("a", "x", "y", "birds"), predicted("b", "cat", "dog")])
    assert [(s.source, s.turns, s.metrics[0].value) for s in scores.sources] == [("birds", 1, 0.0), ("pets", 2, 0.5)]


def test_every_turn_is_scored() -> None:
    turns = [predicted("a", answer, "x", turn=turn) for turn, answer in enumerate(["x", "y", "y", "x."])]
    scores = score([*turns, predicted("b", "y", "x")])
    assert (scores.sources[0].rows, scores.sources[0].turns) == (2, 5)
    accuracy = measures(scores)["accuracy"]
    assert (accuracy.value, accuracy.count, scores.complete) == (0.4, 5, True)


def test_turns_without_gold_answer_are_listed_and_not_scored() -> None:
    scores = score([predicted("a", "x", "x"), predicted("b", "x"), predicted("c", "x", answers=["y", "x"])])
    assert scores.sources[0].unlabelled == [TurnAddress(id="b", turn=0)]
    accuracy = measures(scores)["accuracy"]
    assert (accuracy.value, accuracy.count, scores.complete) == (1.0, 2, False)


def test_a_split_without_labels_has_no_score() -> None:
    scores = score([predicted("a", "x", None, "ucf101"), predicted("b", "x", None, "ucf101")])
    (source,) = scores.sources
    assert [turn.id for turn in source.unlabelled] == ["a", "b"]
    (accuracy,) = source.metrics
    assert (accuracy.value, accuracy.low, accuracy.count, accuracy.reason) == (
        None,
        None,
        0,
        "no turn has a gold answer",
    )
    assert source.classes == []


def test_a_row_with_missing_turns_is_listed() -> None:
    turns = [predicted("a", "x", "x", turn=1), predicted("b", "x", "x", turn=0), predicted("b", "x", "x", turn=2)]
    scores = score([*turns, predicted("c", "x", "x")])
    assert scores.sources[0].incomplete == ["a", "b"]
    assert not scores.complete


def test_an_empty_prediction_counts_as_wrong() -> None:
    found = scored([predicted("a", "", "x"), predicted("b", "x", "x")], "accuracy", "anls")
    assert [found[name].value for name in ("accuracy", "anls")] == [0.5, 0.5]


def nlvr2(split: str, image_set: int, pair: int, sentence: int, correct: bool) -> Prediction:
    """Return a prediction for a row as the NLVR2 converter writes it."""
    row = {
        "id": f"{split}-{image_set}-{pair}-{sentence}",
        "source": "nlvr2",
        "group": f"{split}-{image_set}",
        "metadata": {"sentence_id": f"{split}-{image_set}-{sentence}"},
        "conversations": [{"images": [], "user": "?", "assistant": "True"}],
    }
    return Prediction.from_row(Row.model_validate_json(json.dumps(row)), 0, "true." if correct else "False")


def test_consistency_of_a_hand_computed_example() -> None:
    right = {(1, 0, 0): True, (1, 1, 0): True, (1, 0, 1): True, (1, 1, 1): False, (2, 0, 0): True, (3, 0, 0): False}
    found = scored(nlvr2("dev", *place, correct) for place, correct in right.items())
    # Of the statements 1-0, 1-1, 2-0 and 3-0, the first and the third are always answered correctly.
    assert (found["accuracy"].value, found["accuracy"].count) == (4 / 6, 6)
    assert (found["consistency"].value, found["consistency"].count) == (0.5, 4)


PLACES = st.tuples(st.sampled_from(["dev", "test1"]), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1))


@settings(max_examples=1000)
@given(st.dictionaries(PLACES, st.booleans(), min_size=1))
def test_consistency_follows_its_definition(right: dict[tuple[str, int, int, int], bool]) -> None:
    found = scored(nlvr2(*place, correct) for place, correct in right.items())
    statements = {(split, image_set, sentence) for split, image_set, _, sentence in right}
    wrong = {(split, image_set, sentence) for (split, image_set, _, sentence), correct in right.items() if not correct}
    assert found["consistency"].value == pytest.approx(len(statements - wrong) / len(statements), abs=1e-12)
    assert found["consistency"].count == len(statements)


def test_consistency_without_statements_is_not_computed() -> None:
    rows = [predicted("a", "x", "x", "nlvr2", sentence_id="s"), predicted("b", "x", "x", "nlvr2")]
    found = score(rows)
    assert measures(found)["consistency"].reason == "1 of 2 turns have no sentence_id, such as turn 0 of b"
    assert measures(found)["accuracy"].value == 1
    assert found.complete  # it was not requested explicitly
    assert not score(rows, ScoreOptions(metrics=("consistency",))).complete


def memes(*items: tuple[str, float | None]) -> list[Prediction]:
    return [predicted(f"m{i}", "Yes", gold, "hateful-memes", score=p) for i, (gold, p) in enumerate(items)]


def test_auroc_uses_the_positive_answer() -> None:
    items = memes(("Yes", 0.9), ("No.", 0.5), ("yes.", 0.5), ("No", 0.1))
    assert scored(items)["auroc"].value == 0.875
    turned = score(items, ScoreOptions(positive=("NO.",), resamples=0))
    assert measures(turned)["auroc"].value == 0.125


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([("Yes", 0.1), ("yes", 0.9)], "there must be two different gold answers, not 1"),
        ([("Yes", 0.1), ("No", 0.9), ("both", 0.5)], "there must be two different gold answers, not 3"),
        ([("Yes", 0.1), ("No", None)], "1 of 2 turns have no score, such as turn 0 of m1"),
        ([("kind", 0.1), ("mean", 0.9)], "set --positive to the positive gold answer, 'kind' or 'mean'"),
        ([("yes", 0.1), ("true", 0.9)], "set --positive to the positive gold answer, 'true' or 'yes'"),
    ],
)
def test_auroc_that_cannot_be_computed_has_a_reason(items: list[tuple[str, float | None]], reason: str) -> None:
    auroc = scored(memes(*items))["auroc"]
    assert (auroc.value, auroc.reason) == (None, reason)


def test_rows_of_a_group_are_resampled_together() -> None:
    def width(group: str | None) -> float:
        rows = [
            predicted(f"{i}-{j}", "x", "x" if i % 3 else "y", group=group and f"{group}{i}")
            for i in range(30)
            for j in range(8)
        ]
        accuracy = scored(rows, resamples=300)["accuracy"]
        assert accuracy.low is not None and accuracy.high is not None
        assert accuracy.low < 2 / 3 < accuracy.high
        return accuracy.high - accuracy.low

    assert width("g") > 2 * width(None)


def test_turns_of_a_row_are_resampled_together() -> None:
    one_row = [predicted("a", "x", "x" if turn % 2 else "y", turn=turn) for turn in range(20)]
    accuracy = scored(one_row, resamples=100)["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.5, None, None)


def test_the_result_is_reproducible() -> None:
    chance = random.Random(0)
    rows = memes(*((chance.choice(["Yes", "No"]), round(chance.random(), 1)) for _ in range(50)))
    assert score(rows).model_dump_json() == score(rows).model_dump_json()
    assert score(rows, ScoreOptions(seed=1)).sources != score(rows).sources


def test_the_majority_baseline_is_the_best_constant_answer() -> None:
    found = [predicted(f"r{n}", "whatever", gold) for n, gold in enumerate(["Red", "red.", "blue", "green"])]
    assert scored(found, "majority")["majority"].value == 0.5
    tied = [predicted("a", "x", "b"), predicted("b", "x", "a")]
    assert scored(tied, "majority")["majority"].value == scored(tied[::-1], "majority")["majority"].value == 0.5
    several = [predicted(f"r{n}", "x", gold, answers=[gold, "none"]) for n, gold in enumerate("abc")]
    assert scored(several, "majority")["majority"].value == 1

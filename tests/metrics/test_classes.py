"""Per-class scores and the confusion matrix against scikit-learn."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from convkit.metrics.answers import normalize
from convkit.metrics.classes import class_scores

NAMES = ["cat", "dog", "Cow", "Hen."]
PAIRS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([*NAMES, "CAT. ", "hen", "unknown", ""])), min_size=1, max_size=40
)


@settings(max_examples=1000)
@given(PAIRS)
def test_class_scores_equal_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    scores = class_scores(pairs)
    gold = [normalize(name) for name, _ in pairs]
    labels = sorted(set(gold))
    predicted = [name if (name := normalize(text)) in labels else "~other" for _, text in pairs]
    matrix = confusion_matrix(gold, predicted, labels=[*labels, "~other"])[:-1]
    assert [normalize(score.name) for score in scores] == labels
    ours = [[*(score.predicted_as.get(other.name, 0) for other in scores), score.no_class] for score in scores]
    assert ours == matrix.tolist()
    theirs = precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    for score, precision, recall, f1, support in zip(scores, *theirs, strict=True):
        assert (score.precision or 0, score.recall, score.support) == (precision, recall, support)
        assert abs(score.f1 - f1) < 1e-12
        assert (score.precision is None) == (score.predicted == 0)


def test_a_class_is_named_after_its_first_spelling() -> None:
    (score,) = class_scores([("Yes.", "YES"), ("yes", "yess")])
    assert (score.name, score.support, score.correct, score.predicted_as, score.no_class) == (
        "Yes.",
        2,
        1,
        {"Yes.": 1},
        1,
    )

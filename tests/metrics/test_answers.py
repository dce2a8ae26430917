"""Exact match and ANLS against their definitions, and at their thresholds."""

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convkit.errors import MissingExtra
from convkit.metrics.answers import anls, exact_match, normalize

# Few letters, so that texts are often close to each other; white space and letters whose lower case is longer.
TEXTS = st.text("abAB .\t\u0130\u00df\u00e9\U0001f600", max_size=12)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("BabyCrawling", "babycrawling"),
        (" Yes.\n", "yes"),
        ("..a.b..", "a.b"),
        ("Yes .", "yes "),  # in the recipe's order, white space before a full stop stays
        (".", ""),
        ("", ""),
        ("\u00c9T\u00c9", "\u00e9t\u00e9"),
    ],
)
def test_normalization_is_that_of_the_recipe(text: str, normal: str) -> None:
    assert normalize(text) == normal


def test_exact_match_accepts_any_accepted_answer() -> None:
    assert exact_match("two.", ("2", "Two"))
    assert not exact_match("twos", ("2", "Two"))
    assert not exact_match("", ("2", "Two"))
    assert exact_match("", (".",))
    assert not exact_match("a", ())


@pytest.mark.parametrize(
    ("prediction", "accepted", "score"),
    [
        ("ab", ["ac"], 0.0),  # a distance of exactly 0.5 is none below 0.5
        ("abcd", ["abxy"], 0.0),
        ("abc", ["abx"], 1 - 1 / 3),
        ("abcde", ["abcxy"], 1 - 2 / 5),  # just below 0.5
        ("abcde", ["abxyz"], 0.0),  # just above
        ("", ["a"], 0.0),
        ("a", [""], 0.0),
        ("", [""], 1.0),
        (" ", [""], 1.0),
        ("", ["a", ""], 1.0),
        ("PARIS", ["paris"], 1.0),
        ("  New \n York ", ["new york"], 1.0),
        ("caf\u00e9", ["cafe"], 0.75),
        ("\U0001f600\U0001f600\U0001f600", ["\U0001f600\U0001f600x"], 1 - 1 / 3),  # characters, not bytes
        ("Stra\u00dfe", ["STRASSE"], 1 - 2 / 7),
        ("abcx", ["zzzz", "abcd", "abyy"], 0.75),  # the closest answer counts
    ],
)
def test_anls_of_hand_computed_examples(prediction: str, accepted: list[str], score: float) -> None:
    assert anls(prediction, accepted) == score


def test_anls_without_accepted_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one accepted answer"):
        anls("a", ())


def distance(one: str, other: str) -> int:
    """Compute the edit distance with the Wagner-Fischer table."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return table[len(one), len(other)]


def defined(prediction: str, accepted: list[str]) -> float:
    best = 0.0
    for answer in accepted:
        one, other = (" ".join(text.strip().lower().split()) for text in (prediction, answer))
        normalised = distance(one, other) / max(len(one), len(other)) if one or other else 0.0
        if normalised < 0.5:
            best = max(best, 1 - normalised)
    return best


@settings(max_examples=1000)
@example("ab", ["ac"])
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_anls_follows_its_definition(prediction: str, accepted: list[str]) -> None:
    assert anls(prediction, accepted) == defined(prediction, accepted)


@settings(max_examples=1000)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_anls_equals_rapidfuzz_above_the_threshold(prediction: str, accepted: list[str]) -> None:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    def plain(text: str) -> str:
        return " ".join(text.lower().split())

    similarities = cdist([prediction], accepted, scorer=Levenshtein.normalized_similarity, processor=plain, dtype=float)
    best = float(similarities.max())
    assert anls(prediction, accepted) == (pytest.approx(best, abs=1e-6) if best > 0.5 else 0)


def test_anls_without_rapidfuzz_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(MissingExtra, match=r"ANLS needs the package rapidfuzz.*convkit-vlm\[metrics\]"):
        anls("a", ["b"])

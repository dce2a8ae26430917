"""Compare a prediction with the accepted answers: exact match and ANLS."""

from collections.abc import Collection

from convkit.errors import MissingExtra


def normalize(text: str) -> str:
    """Normalize an answer as the recipe does: strip white space, then full stops at both ends, and lower the case."""
    return text.strip().strip(".").lower()


def exact_match(prediction: str, accepted: Collection[str]) -> bool:
    """Return whether a prediction equals an accepted answer after normalization."""
    return normalize(prediction) in map(normalize, accepted)


def anls(prediction: str, accepted: Collection[str]) -> float:
    """Return the normalized Levenshtein similarity to the closest accepted answer (Biten et al. 2019).

    The edit distance is divided by the length of the longer text; if the quotient is 0.5 or more, the similarity is 0.
    Case is ignored. White space is stripped at both ends, and collapsed to one space between words. Two empty texts
    are equal.

    Returns:
        0, or a number above 0.5 and at most 1.

    Raises:
        ValueError: there is no accepted answer.
        MissingExtra: rapidfuzz is not installed.
    """
    if not accepted:
        raise ValueError("ANLS needs at least one accepted answer")
    return max(_similarity(_collapse(prediction), _collapse(answer)) for answer in accepted)


def _collapse(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError:
        raise MissingExtra("rapidfuzz", "metrics", "ANLS") from None
    longer = max(len(one), len(other))
    # Integers avoid rounding at the threshold of 0.5. A distance above the cutoff is returned as cutoff + 1.
    distance = Levenshtein.distance(one, other, score_cutoff=longer // 2)
    return 1 - distance / longer if 2 * distance < longer else float(not longer)

"""Comparing one prediction with the accepted answers: by equality, and by edit distance."""

from collections.abc import Collection

from convkit.errors import MissingExtra


def normalize(text: str) -> str:
    """The recipe's normalisation, in its order: white space and then full stops at both ends go, case is ignored."""
    return text.strip().strip(".").lower()


def exact_match(prediction: str, accepted: Collection[str]) -> bool:
    """Whether a prediction equals an accepted answer after normalisation."""
    return normalize(prediction) in map(normalize, accepted)


def anls(prediction: str, accepted: Collection[str]) -> float:
    """Normalised Levenshtein similarity to the closest accepted answer (Biten et al. 2019, the metric of DocVQA).

    The distance is divided by the length of the longer text; from 0.5 on, the similarity counts as 0. Case is ignored,
    and so is white space but for one space between words. Two empty texts are equal.

    Returns:
        0, or a number above 0.5 up to 1.

    Raises:
        ValueError: there is no accepted answer.
        MissingExtra: rapidfuzz is not installed.
    """
    if not accepted:
        raise ValueError("ANLS needs at least one accepted answer")
    return max(_similarity(_plain(prediction), _plain(answer)) for answer in accepted)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(one: str, other: str) -> float:
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError:
        raise MissingExtra("rapidfuzz", "metrics", "ANLS") from None
    longer = max(len(one), len(other))
    # Whole numbers: a division would leave the boundary to rounding. A distance above the cutoff comes as cutoff + 1.
    distance = Levenshtein.distance(one, other, score_cutoff=longer // 2)
    return 1 - distance / longer if 2 * distance < longer else float(not longer)

"""Define the synthetic workloads: the images and the amount of text of each row."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from convkit.profiles import ImageSize


@dataclass(frozen=True)
class RowShape:
    """The shape of a row with one turn."""

    images: tuple[ImageSize, ...]
    kind: Literal["page", "noise"]
    """`page` is black text on white, `noise` is coloured noise."""
    question_words: int
    answer_words: int


@dataclass(frozen=True)
class Workload:
    """An endless series of random rows, the same for the same seed."""

    num_crops: int
    draw: Callable[[Random], RowShape]
    """Draws the next row."""


PAGE = ImageSize(1700, 2200)
FRAME = ImageSize(320, 240)
_PAGES = [
    PAGE,
    ImageSize(1692, 2245),
    ImageSize(1700, 2203),
    ImageSize(1701, 2265),
    ImageSize(2162, 1695),
    ImageSize(1695, 1392),
]
_PHOTOS = [
    ImageSize(640, 480),
    ImageSize(480, 640),
    ImageSize(640, 427),
    ImageSize(1024, 768),
    ImageSize(600, 400),
    ImageSize(512, 512),
]


def _document(random: Random) -> RowShape:
    return RowShape((PAGE,), "page", question_words=30, answer_words=4)


def _video(random: Random) -> RowShape:
    return RowShape((FRAME,) * 8, "noise", question_words=28, answer_words=2)


def _mixed(random: Random) -> RowShape:
    question, answer = random.randint(6, 60), random.randint(1, 30)
    chosen = random.random()
    if chosen < 0.35:
        return RowShape((random.choice(_PAGES),), "page", question, answer)
    if chosen < 0.65:
        return RowShape((random.choice(_PHOTOS),), "noise", question, answer)
    if chosen < 0.75:
        return RowShape((FRAME,) * 8, "noise", question, answer)
    if chosen < 0.9:
        return RowShape(tuple(random.choices(_PHOTOS, k=random.randint(2, 4))), "noise", question, answer)
    return RowShape((), "noise", 8 * question, 6 * answer)


WORKLOADS = {
    "document": Workload(16, _document),
    "video": Workload(4, _video),
    "mixed": Workload(4, _mixed),
}

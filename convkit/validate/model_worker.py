"""What a worker does with a piece where a model is named: it needs whole rows, and the sizes of their images."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from convkit.media.images import ImageInfo
from convkit.profiles import ImageSize, TargetModel
from convkit.rules.file import without_marks
from convkit.rules.lookup import Growing, image_paths
from convkit.rules.model import problems
from convkit.schema import Row
from convkit.utils.digests import contains, digest, from_bytes, packed_digests
from convkit.validate.chunks import Piece
from convkit.validate.row_worker import Found

if TYPE_CHECKING:
    from convkit.utils.digests import Digests

_SIDE_BITS = 32


class Sizes:
    """The sizes of the images that were looked at, in 16 bytes each, so that none is opened again."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._paths, self._sizes = Growing(), Growing()

    def add(self, path: str, image: ImageInfo) -> None:
        """Keep one."""
        self._paths.add(digest(path.encode(), self._key))
        self._sizes.add(image.width << _SIDE_BITS | image.height)

    def save(self, path: Path) -> None:
        """Write them where all workers find them, in the order of the paths' digests."""
        import numpy as np

        known, packed = self._paths.all(), self._sizes.all()
        order = np.argsort(known)
        np.save(path, np.stack([known[order], packed[order]]))


class Job(NamedTuple):
    """A piece of a data set."""

    piece: Piece
    key: int
    """Of the digests."""
    train: bool
    """Its rows are trained on."""
    sizes: str
    """The file of `Sizes`."""


class Judged(NamedTuple):
    """What is sent back of a piece."""

    rows: int
    """Sound ones."""
    found: list[Found]


def judge(job: Job, *, target: TargetModel, max_line: int) -> Judged:
    """What a model makes of the sound rows of a piece.

    Args:
        max_line: the most bytes of a line, without its line end.
    """
    lines = job.piece.read().split(b"\n")
    rows = list(_sound(lines, job.piece.first_line, max_line))
    paths = [[path for path, _ in image_paths(row)] for _, row in rows]
    # Without media sizes are unknown; what needs none is still asked.
    sizes = iter(_look_up(job.sizes, [path for several in paths for path in several], job.key))
    found = [
        Found(line, row.id, problem.rule.code, problem.message, problem.pointer)
        for (line, row), several in zip(rows, paths, strict=True)
        for problem in problems(row, [next(sizes) for _ in several], target, job.train)
    ]
    return Judged(len(rows), found)


def _sound(lines: list[bytes], first: int, max_line: int) -> Iterator[tuple[int, Row]]:
    for line, raw in enumerate(lines, first):
        try:
            if len(raw) <= max_line:
                yield line, Row.model_validate_json(without_marks(raw))
        except ValidationError:
            continue


def _look_up(file: str, paths: Sequence[str], key: int) -> list[ImageSize | None]:
    """The sizes of images by their paths: None for one that was not seen, or is not sound."""
    import numpy as np

    known, packed = _saved(file)
    if not (paths and len(known)):
        return [None] * len(paths)
    wanted = from_bytes(packed_digests(paths, key))
    sizes = packed[np.searchsorted(known, wanted) % len(known)].tolist()
    return [
        ImageSize(size >> _SIDE_BITS, size & (1 << _SIDE_BITS) - 1) if seen else None
        for size, seen in zip(sizes, contains(known, wanted).tolist(), strict=True)
    ]


@lru_cache(1)
def _saved(file: str) -> "tuple[Digests, Digests]":
    import numpy as np

    known, packed = np.load(file, mmap_mode="r")
    return known, packed

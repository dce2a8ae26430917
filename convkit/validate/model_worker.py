"""Check rows against a model (rules CK4xx) in a worker process, given whole rows and the sizes of their images."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from convkit.media.images import ImageInfo
from convkit.profiles import ImageSize, TargetModel
from convkit.rules.file import without_marks
from convkit.rules.lookup import DigestBuffer, image_paths
from convkit.rules.model import problems
from convkit.schema import Row
from convkit.utils.digests import contains, digest, from_bytes, packed_digests
from convkit.validate.chunks import RowChunk
from convkit.validate.row_worker import RowProblem

if TYPE_CHECKING:
    from convkit.utils.digests import Digests

_SIDE_BITS = 32


class Sizes:
    """The sizes of all images that were read, in 16 bytes each, so that no image is opened again."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._paths, self._sizes = DigestBuffer(), DigestBuffer()

    def add(self, path: str, image: ImageInfo) -> None:
        """Add the size of an image."""
        self._paths.add(digest(path.encode(), self._key))
        self._sizes.add(image.width << _SIDE_BITS | image.height)

    def save(self, path: Path) -> None:
        """Write the sizes to a file for the workers, sorted by the digests of the paths."""
        import numpy as np

        paths, sizes = self._paths.all(), self._sizes.all()
        order = np.argsort(paths)
        np.save(path, np.stack([paths[order], sizes[order]]))


class ModelJob(NamedTuple):
    """The input of `check_rows`: one chunk of a row file."""

    chunk: RowChunk
    key: int
    """The key of all digests."""
    train: bool
    """The rows are of a training split."""
    sizes: str
    """The file that `Sizes.save` wrote."""


class ModelFindings(NamedTuple):
    """The result of `check_rows` for one chunk."""

    rows: int
    """The number of valid rows."""
    problems: list[RowProblem]


def check_rows(job: ModelJob, *, target: TargetModel, max_line: int) -> ModelFindings:
    """Check the valid rows of a chunk against a model.

    Args:
        max_line: maximum bytes per line, without its line end.
    """
    lines = job.chunk.read().split(b"\n")
    rows = list(_valid_rows(lines, job.chunk.first_line, max_line))
    paths = [[path for path, _ in image_paths(row)] for _, row in rows]
    # Without media all sizes are None; the checks that need no size still run.
    sizes = iter(_look_up(job.sizes, [path for row_paths in paths for path in row_paths], job.key))
    found: list[RowProblem] = [
        (line, row.id, *problem)
        for (line, row), row_paths in zip(rows, paths, strict=True)
        for problem in problems(row, [next(sizes) for _ in row_paths], target, job.train)
    ]
    return ModelFindings(len(rows), found)


def _valid_rows(lines: list[bytes], first: int, max_line: int) -> Iterator[tuple[int, Row]]:
    for line, raw in enumerate(lines, first):
        try:
            if len(raw) <= max_line:
                yield line, Row.model_validate_json(without_marks(raw))
        except ValidationError:
            continue


def _look_up(file: str, paths: Sequence[str], key: int) -> list[ImageSize | None]:
    """Return the sizes of images by their paths: None for an image that was not read or cannot be decoded."""
    import numpy as np

    known, packed = _load_sizes(file)
    if not (paths and len(known)):
        return [None] * len(paths)
    wanted = from_bytes(packed_digests(paths, key))
    sizes = packed[np.searchsorted(known, wanted) % len(known)].tolist()
    return [
        ImageSize(size >> _SIDE_BITS, size & (1 << _SIDE_BITS) - 1) if is_known else None
        for size, is_known in zip(sizes, contains(known, wanted).tolist(), strict=True)
    ]


@lru_cache(1)
def _load_sizes(file: str) -> "tuple[Digests, Digests]":
    import numpy as np

    known, packed = np.load(file, mmap_mode="r")
    return known, packed

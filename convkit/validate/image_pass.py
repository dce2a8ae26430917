"""Read the images that rows reference: each file once, in worker processes, unless the cache has its result."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from convkit.media import images
from convkit.media.cache import FileStamp, MediaCache, file_stamp
from convkit.media.images import ImageInfo, ImageJob, ImageProblem
from convkit.rules.base import ImageRef
from convkit.utils import pool

_BATCH = 500
_MAX_PENDING = 20_000
"""Maximum number of cached results that wait for an image before them that a worker reads."""


class _Pending(NamedTuple):
    ref: ImageRef
    stamp: FileStamp | None
    cached: ImageInfo | None


OnImage = Callable[[ImageRef, ImageInfo | ImageProblem], None]


def read_images(
    folder: Path, refs: Iterable[ImageRef], on_image: OnImage, *, decode: bool, workers: int, cache: MediaCache
) -> None:
    """Read images, or take their results from the cache, and call `on_image` in the order of the references."""
    queue = _Queue(folder, on_image, decode, cache)
    for outcome in pool.run(partial(images.inspect_image, folder, decode), queue.jobs(iter(refs)), workers, _crashed):
        queue.add_result(outcome)
    queue.flush()


def _crashed(job: ImageJob) -> ImageProblem:
    return images.crash_problem(job.relative)


class _Queue:
    """Keeps cached results and results of workers in the order of the references, in bounded memory."""

    def __init__(self, folder: Path, on_image: OnImage, decode: bool, cache: MediaCache) -> None:
        self._on_image, self._decode, self._cache = on_image, decode, cache
        self._root = os.path.realpath(folder)
        self._pending: deque[_Pending] = deque()
        self._real_folder = lru_cache(4096)(self._resolve)

    def jobs(self, refs: Iterator[ImageRef]) -> Iterator[ImageJob]:
        while batch := list(islice(refs, _BATCH)):
            cached = self._cache.get([ref.path for ref in batch])
            for ref in batch:
                real = self._real(ref.path)
                stamp = real and file_stamp(real)
                image = self._if_unchanged(cached.get(ref.path), stamp or None)
                if image and not self._pending:
                    self._on_image(ref, image)
                    continue
                if len(self._pending) >= _MAX_PENDING:
                    image = None
                self._pending.append(_Pending(ref, stamp or None, image))
                if image is None:
                    yield ImageJob(ref.path, real if stamp else None)

    def _if_unchanged(self, entry: tuple[FileStamp, ImageInfo] | None, stamp: FileStamp | None) -> ImageInfo | None:
        if entry is None or entry[0] != stamp:
            return None
        return entry[1] if self._decode else entry[1]._replace(sha256=None)

    def add_result(self, outcome: ImageInfo | ImageProblem) -> None:
        """Add the result of the oldest job."""
        self.flush()
        ref, stamp, _ = self._pending.popleft()
        # Headers are not cached: reading one again costs no more than the cache.
        if self._decode and stamp and isinstance(outcome, ImageInfo):
            self._cache.put(ref.path, stamp, outcome)
        self._on_image(ref, outcome)
        self.flush()

    def flush(self) -> None:
        """Report the cached images at the head of the queue."""
        while self._pending and (image := self._pending[0].cached):
            self._on_image(self._pending.popleft().ref, image)

    def _real(self, relative: str) -> str | None:
        folder, _, name = relative.rpartition("/")
        real = self._real_folder(folder)
        return f"{real}/{name}" if real else None

    def _resolve(self, folder: str) -> str | None:
        """Return the real path of a folder inside images/, or None if it leads outside."""
        try:
            real = os.path.realpath(os.path.join(self._root, folder))
        except (OSError, ValueError):
            return None
        return real if real == self._root or real.startswith(self._root + os.sep) else None

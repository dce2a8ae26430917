"""Looking at the images that rows name: each once, in worker processes, and only where the cache does not know it."""

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
from convkit.rules.base import Mention
from convkit.utils import pool

_BATCH = 500
_MOST_WAITING = 20_000
"""Images that are known may wait for this many places behind one that is being looked at."""


class _Waiting(NamedTuple):
    mention: Mention
    stamp: FileStamp | None
    known: ImageInfo | None


Take = Callable[[Mention, ImageInfo | ImageProblem], None]


def look_at_all(
    folder: Path, mentions: Iterable[Mention], take: Take, *, decode: bool, workers: int, cache: MediaCache
) -> None:
    """Look at images, or remember them, and hand what was seen to `take` in the order of the mentions."""
    queue = _Queue(folder, take, decode, cache)
    for outcome in pool.run(
        partial(images.inspect_image, folder, decode), queue.jobs(iter(mentions)), workers, _crashed
    ):
        queue.looked(outcome)
    queue.settle()


def _crashed(job: ImageJob) -> ImageProblem:
    return images.crash_problem(job.relative)


class _Queue:
    """Keeps images in order, those that are known and those that workers look at; bounded in memory."""

    def __init__(self, folder: Path, take: Take, decode: bool, cache: MediaCache) -> None:
        self._take, self._decode, self._cache = take, decode, cache
        self._root = os.path.realpath(folder)
        self._waiting: deque[_Waiting] = deque()
        self._real_folder = lru_cache(4096)(self._resolve)

    def jobs(self, mentions: Iterator[Mention]) -> Iterator[ImageJob]:
        while batch := list(islice(mentions, _BATCH)):
            known = self._cache.get([mention.path for mention in batch])
            for mention in batch:
                real = self._real(mention.path)
                stamp = real and file_stamp(real)
                image = self._known(known.get(mention.path), stamp or None)
                if image and not self._waiting:
                    self._take(mention, image)
                    continue
                if len(self._waiting) >= _MOST_WAITING:
                    image = None
                self._waiting.append(_Waiting(mention, stamp or None, image))
                if image is None:
                    yield ImageJob(mention.path, real if stamp else None)

    def _known(self, entry: tuple[FileStamp, ImageInfo] | None, stamp: FileStamp | None) -> ImageInfo | None:
        if entry is None or entry[0] != stamp:
            return None
        return entry[1] if self._decode else entry[1]._replace(sha256=None)

    def looked(self, outcome: ImageInfo | ImageProblem) -> None:
        """Take in the outcome of the first job that has none."""
        self.settle()
        mention, stamp, _ = self._waiting.popleft()
        # To look at a header again costs no more than to keep what it says.
        if self._decode and stamp and isinstance(outcome, ImageInfo):
            self._cache.put(mention.path, stamp, outcome)
        self._take(mention, outcome)
        self.settle()

    def settle(self) -> None:
        """Hand on the images that are known and wait for none before them."""
        while self._waiting and (known := self._waiting[0].known):
            self._take(self._waiting.popleft().mention, known)

    def _real(self, relative: str) -> str | None:
        folder, _, name = relative.rpartition("/")
        real = self._real_folder(folder)
        return f"{real}/{name}" if real else None

    def _resolve(self, folder: str) -> str | None:
        """The real path of a folder inside images/; None where it leads out."""
        try:
            real = os.path.realpath(os.path.join(self._root, folder))
        except (OSError, ValueError):
            return None
        return real if real == self._root or real.startswith(self._root + os.sep) else None

"""The pass over rows that is made where a model is named: its rules need whole rows and the sizes of their images."""

from collections.abc import Callable, Iterator, Sequence

from convkit.digests import contains, digest, from_bytes, packed_digests
from convkit.findings import Finding
from convkit.media.images import Image
from convkit.profiles import Size, Target
from convkit.progress import Progress
from convkit.rules.base import Corpus, Place
from convkit.rules.lookup import Growing, is_training, sound_rows, split_names
from convkit.rules.model import problems

_SIDE_BITS = 32


class Sizes:
    """The sizes of the images that were looked at, in 16 bytes each, so that none is opened again."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._paths, self._sizes = Growing(), Growing()

    def add(self, path: str, image: Image) -> None:
        """Keep one."""
        self._paths.add(digest(path.encode(), self._key))
        self._sizes.add(image.width << _SIDE_BITS | image.height)

    def sorted(self) -> Callable[[Sequence[str]], list[Size | None]]:
        """What tells the sizes of images by their paths: None for one that was not seen, or is not sound."""
        import numpy as np

        known, packed = self._paths.all(), self._sizes.all()
        order = np.argsort(known)
        known, packed = known[order], packed[order]

        def look_up(paths: Sequence[str]) -> list[Size | None]:
            if not (paths and len(known)):
                return [None] * len(paths)
            wanted = from_bytes(packed_digests(paths, self._key))
            sizes = packed[np.searchsorted(known, wanted) % len(known)].tolist()
            return [
                Size(size >> _SIDE_BITS, size & (1 << _SIDE_BITS) - 1) if seen else None
                for size, seen in zip(sizes, contains(known, wanted).tolist(), strict=True)
            ]

        return look_up


def findings(corpus: Corpus, target: Target, seen: Sizes, progress: Progress) -> Iterator[Finding]:
    """What a model makes of the sound rows of a data set, file by file."""
    sizes_of = seen.sorted()
    done, total = 0, sum(file.rows for file in corpus.files)
    for file, split in zip(corpus.files, split_names(corpus), strict=True):
        for line, row in sound_rows(file):
            done += 1
            progress(done, total)
            # Without media sizes are unknown; what needs none is still asked.
            sizes = sizes_of([path for turn in row.conversations for path in turn.images])
            place = Place(file.name, line, row.id)
            yield from map(place.finding, problems(row, sizes, target, is_training(split)))

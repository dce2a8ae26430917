"""The pass over rows that is made where a model is named: its rules need whole rows and the sizes of their images."""

from collections.abc import Iterator
from functools import lru_cache

from convkit import layout
from convkit.findings import Finding
from convkit.media.images import Image, check
from convkit.profiles import Size, Target
from convkit.progress import Progress
from convkit.rules.base import Corpus, Place
from convkit.rules.lookup import sound_rows
from convkit.rules.model import problems

TRAIN = "train"
_REMEMBERED_SIZES = 65_536


def findings(corpus: Corpus, target: Target, progress: Progress) -> Iterator[Finding]:
    """What a model makes of the sound rows of a data set, file by file."""
    size = lru_cache(_REMEMBERED_SIZES)(lambda path: _size(corpus, path))
    train = _train_files(corpus)
    done = 0
    for file in corpus.files:
        for line, row in sound_rows(file):
            done += 1
            progress(done, sum(each.rows for each in corpus.files))
            # Without media sizes are unknown; what needs none is still asked.
            sizes = [size(path) for turn in row.conversations for path in turn.images]
            place = Place(file.name, line, row.id)
            yield from map(place.finding, problems(row, sizes, target, file.path.name in train))


def _train_files(corpus: Corpus) -> set[str]:
    if corpus.manifest is None:
        return {file.path.name for file in corpus.files if file.path.name.endswith(layout.split_file("", TRAIN))}
    return {split.file for name, split in corpus.manifest.splits.items() if name == TRAIN}


def _size(corpus: Corpus, path: str) -> Size | None:
    if not corpus.media:
        return None
    outcome = check(corpus.directory / layout.IMAGES, False, path)
    return Size(outcome.width, outcome.height) if isinstance(outcome, Image) else None

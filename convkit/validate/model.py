"""The pass over rows that is made where a model is named: its rules need whole rows and the sizes of their images."""

from collections.abc import Iterator
from functools import lru_cache

from pydantic import ValidationError

from convkit import layout
from convkit.dataset import MAX_LINE_BYTES, read_lines
from convkit.findings import Finding
from convkit.media.images import Image, check
from convkit.profiles import Size, Target
from convkit.progress import Progress
from convkit.rules.base import Corpus, Place
from convkit.rules.model import problems
from convkit.schema import Conversation

TRAIN = "train"
_REMEMBERED_SIZES = 65_536


def findings(corpus: Corpus, target: Target, progress: Progress) -> Iterator[Finding]:
    """What a model makes of the sound rows of a data set, file by file."""
    size = lru_cache(_REMEMBERED_SIZES)(lambda path: _size(corpus, path))
    train = _train_files(corpus)
    done = 0
    for file in corpus.files:
        if file.missing:
            continue
        for line in read_lines(file.path, MAX_LINE_BYTES):
            done += 1
            progress(done, sum(each.rows for each in corpus.files))
            try:
                row = Conversation.model_validate_json(line.raw)
            except ValidationError:
                continue  # other rules have said what is wrong with it
            # Without media sizes are unknown; what needs none is still asked.
            sizes = [size(path) for turn in row.conversations for path in turn.images]
            place = Place(file.name, line.number, row.id)
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

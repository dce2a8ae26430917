"""CK307 to CK310: data leakage, which is images and groups in more than one split."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.layout import is_training
from convkit.media.image_properties import HASH_BITS
from convkit.rules.base import Check, DatasetFiles, ImageRef, Problem, RowFacts, Rule
from convkit.rules.lookup import (
    MAX_LISTED,
    DigestBuffer,
    first_uses,
    image_paths,
    quoted,
    runs,
    split_names,
    unlisted,
)
from convkit.schema import Row
from convkit.utils.digests import DigestSet, digest

if TYPE_CHECKING:
    from convkit.media.images import ImageInfo
    from convkit.rules.lookup import Indices
    from convkit.utils.digests import Digests

LEAKED_IMAGE = Rule(
    code="CK307",
    slug="leaked-image",
    severity=Severity.ERROR,
    summary="images of the training split that are also in another split, by bytes or pixels (data leakage)",
    why="The model is evaluated on images that it was trained on, so the score measures memorisation.",
    fix="Keep the rows in one split, or split again with `convkit split`, which keeps identical images together.",
)
SHARED_IMAGE = Rule(
    code="CK308",
    slug="shared-image",
    severity=Severity.WARNING,
    summary="images that are in two splits, neither of which is the training split",
    why="If one of the splits is used to choose a model, the score on the other is biased.",
    fix="Keep the rows in one split, or split again with `convkit split`, which keeps identical images together.",
)
NEAR_DUPLICATE = Rule(
    code="CK309",
    slug="near-duplicate",
    severity=Severity.WARNING,
    summary="near-duplicate images in two splits, such as resized or recompressed copies",
    why="A recompressed copy is the same image to a model, so it inflates the score like an exact duplicate.",
    fix="Compare the two images. If they show the same picture, keep it in one split only.",
)
_MAX_DISTANCE = 7
"""Maximum Hamming distance of near-duplicates, of 256 bits.

It is less than the number of bands, so that two near hashes are equal in at least one band.
"""
_BANDS = 8
_MAX_NEIGHBOURS = 64
"""Number of hashes with an equal band that each is compared with; bounds the time."""
_WORDS = HASH_BITS // 64
_MAX_PER_SPLIT = 16
"""Maximum number of equal images of one split that are compared."""


class _Images(NamedTuple):
    """Columns of image properties, one item per image and split that uses it."""

    splits: "Digests"
    """Indices of splits, training splits first."""
    sides: "Digests"
    """As `splits`, but equal for all training splits, which may share images."""
    paths: "Digests"
    contents: "Digests"
    pixels: "Digests"
    hashes: "Digests"
    """Difference hashes (images, 4); zeros for images without one."""


class _Pair(NamedTuple):
    """Two items of `_Images` of different sides, the one of the earlier split first."""

    one: int
    other: int


class SharedImages(Check):
    """CK307 to CK309. Keeps 56 bytes per image.

    Blank images leak no information, so they count only if both splits use the same file.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._split_of_file = split_names(dataset)
        self._splits = sorted(dict.fromkeys(self._split_of_file), key=lambda split: not is_training(split))
        self._used = {split: DigestSet() for split in self._splits}
        self._paths, self._contents, self._pixels, self._hashes = (DigestBuffer() for _ in range(4))

    def rows(self, facts: RowFacts) -> None:
        """Store the images that each split uses."""
        self._used[self._split_of_file[facts.file]].add(facts.images)

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Store the digests and the difference hash of an image."""
        if len(self._splits) > 1:
            path = digest(image_ref.path.encode(), self.dataset.key)
            informative = image.sha256 is not None and not image.blank
            self._paths.add(path)
            self._contents.add(digest(str(image.sha256).encode(), self.dataset.key) if informative else path)
            self._pixels.add(image.pixel_digest if informative else path)
            text = image.difference_hash.zfill(HASH_BITS // 4)
            self._hashes.add(*(int(text[start : start + 16], 16) for start in range(0, len(text), 16)))
        return ()

    def end(self) -> Iterator[Finding]:
        """Yield the findings of exact duplicates, then those of near-duplicates."""
        if len(self._splits) < 2:
            return
        images = self._by_split()
        yield from self._findings(images, _equal(images))
        yield from self._findings(images, _near(images))

    def _by_split(self) -> _Images:
        import numpy as np

        paths = self._paths.all()
        members = [np.flatnonzero(self._used[split].contains(paths)) for split in self._splits]
        chosen = np.concatenate(members)
        splits = np.repeat(np.arange(len(members), dtype=np.uint64), [len(member) for member in members])
        last_training = max(sum(map(is_training, self._splits)) - 1, 0)
        return _Images(
            splits=splits,
            sides=np.maximum(splits, last_training),
            paths=paths[chosen],
            contents=self._contents.all()[chosen],
            pixels=self._pixels.all()[chosen],
            hashes=self._hashes.all().reshape(-1, _WORDS)[chosen],
        )

    def _findings(self, images: _Images, pairs: list[_Pair]) -> Iterator[Finding]:
        """Yield one finding per pair, at the image of the later split."""

        def key(index: int) -> tuple[str, int]:
            return self._splits[int(images.splits[index])], int(images.paths[index])

        listed = pairs[:MAX_LISTED]
        found = first_uses(self.dataset, {key(index) for pair in listed for index in pair}, image_paths)
        rule = NEAR_DUPLICATE
        for pair in listed:
            one, other = found.get(key(pair.one)), found.get(key(pair.other))
            if one and other:
                how = _how(images, pair)
                if how:
                    rule = LEAKED_IMAGE if is_training(key(pair.one)[0]) else SHARED_IMAGE
                match = f"{quoted(one.text)} at {one} in split {key(pair.one)[0]}"
                message = f"{quoted(other.text)} {how or 'is a near-duplicate of'} {match}"
                yield other.location.finding(Problem(rule, message, other.pointer))
        yield from unlisted(self.dataset, rule, len(pairs))


def _how(images: _Images, pair: _Pair) -> str:
    """Describe how two images are equal; return an empty string if they are only near-duplicates."""
    for column, how in (
        (images.paths, "is the same file as"),
        (images.contents, "has the same bytes as"),
        (images.pixels, "has the same pixels as"),
    ):
        if column[pair.one] == column[pair.other]:
            return how
    return ""


def _equal(images: _Images) -> list[_Pair]:
    """Return, for each image in several splits, the most equal pair of the first split and each other split."""
    import numpy as np

    order = np.lexsort((images.sides, images.pixels))
    splits = images.sides[order]
    starts, sizes = runs(images.pixels[order])
    several = splits[starts] != splits[starts + sizes - 1]
    pairs: list[_Pair] = []
    for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True):
        pairs += _pairs_of(images, order[start : start + size])
    return sorted(pairs, key=lambda pair: pair.other)


def _pairs_of(images: _Images, equal: "Indices") -> Iterator[_Pair]:
    import numpy as np

    groups = [equal[images.sides[equal] == split][:_MAX_PER_SPLIT].tolist() for split in np.unique(images.sides[equal])]
    first, *others = groups
    for group in others:
        pairs = [_Pair(one, other) for one in first for other in group]
        ranks = {"is the same file as": 0, "has the same bytes as": 1}
        yield min(pairs, key=lambda pair: ranks.get(_how(images, pair), 2))


def _near(images: _Images) -> list[_Pair]:
    """Return, for each image with near-duplicates in an earlier split, a pair with one of them.

    Hashes are sorted by each band in turn and compared with their neighbours (multi-index hashing), which takes
    n log n for natural images.
    """
    import numpy as np

    items = np.flatnonzero(images.hashes.any(axis=1))
    hashes = images.hashes[items]
    bands = hashes.view(np.uint32).reshape(-1, _BANDS)
    found: dict[int, _Pair] = {}
    for band in range(_BANDS):
        order = np.lexsort((bands[:, (band + 1) % _BANDS], bands[:, band]))
        values = bands[order, band]
        for distance in range(1, min(_MAX_NEIGHBOURS, len(order) - 1) + 1):
            (places,) = np.nonzero(values[distance:] == values[:-distance])
            if not len(places):
                break
            a, b = order[places], order[places + distance]
            for pair in _near_pairs(images, items, hashes, a, b):
                found.setdefault(pair.other, pair)
    return [pair for _, pair in sorted(found.items())]


def _near_pairs(images: _Images, items: "Indices", hashes: "Digests", a: "Indices", b: "Indices") -> Iterator[_Pair]:
    """Yield the pairs (a, b) of different sides that are near-duplicates, but not equal."""
    import numpy as np

    one, other = items[a], items[b]
    candidates = (images.sides[one] != images.sides[other]) & (images.pixels[one] != images.pixels[other])
    one, other, a, b = one[candidates], other[candidates], a[candidates], b[candidates]
    bits = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1)
    for pair in zip(one[bits <= _MAX_DISTANCE].tolist(), other[bits <= _MAX_DISTANCE].tolist(), strict=True):
        yield _Pair(*sorted(pair, key=lambda index: images.splits[index]))


SEPARATED_GROUP = Rule(
    code="CK310",
    slug="separated-group",
    severity=Severity.ERROR,
    summary="groups with rows in different splits",
    why="Rows of a group come from one video, document or patient and must stay together. Otherwise the model is "
    "evaluated on what it saw in training.",
    fix="Split again with `convkit split`, which keeps groups together, or correct the group.",
)


class SeparatedGroups(Check):
    """CK310, with one finding per group and split except the first. Keeps eight bytes per group."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._split_of_file = split_names(dataset)
        self._groups = {split: DigestSet() for split in dict.fromkeys(self._split_of_file)}
        self._separated: dict[tuple[str, int], str] = {}
        self._count = 0

    def rows(self, facts: RowFacts) -> None:
        """Collect the groups that another split has, too."""
        import numpy as np

        if len(self._groups) < 2:
            return
        split = self._split_of_file[facts.file]
        groups = np.unique(facts.groups[facts.groups != 0])
        new = groups[self._groups[split].add(groups)]
        for other, known in self._groups.items():
            if other != split and not (is_training(other) and is_training(split)) and len(new):
                separated = known.contains(new)
                self._count += int(separated.sum())
                for group in new[separated].tolist()[: MAX_LISTED - len(self._separated)]:
                    self._separated[split, group] = other
                new = new[~separated]

    def end(self) -> Iterator[Finding]:
        """Yield a finding per separated group, with both locations."""
        others = [(other, group) for (_, group), other in self._separated.items()]
        found = first_uses(self.dataset, [*self._separated, *others], _group)
        for (split, group), other in self._separated.items():
            here, there = found.get((split, group)), found.get((other, group))
            if here and there:
                message = f"group {quoted(here.text)} is also used at {there} in split {other}"
                yield here.location.finding(Problem(SEPARATED_GROUP, message, here.pointer))
        yield from unlisted(self.dataset, SEPARATED_GROUP, self._count)


def _group(row: Row) -> Iterator[tuple[str, str]]:
    if row.group is not None:
        yield row.group, "/group"


RULES = (LEAKED_IMAGE, SHARED_IMAGE, NEAR_DUPLICATE, SEPARATED_GROUP)
CHECKS: tuple[type[Check], ...] = (SharedImages, SeparatedGroups)

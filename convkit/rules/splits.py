"""CK307 to CK310: what is in two splits. The rules are in `convkit.rules.dataset`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.layout import is_training
from convkit.media.image_properties import HASH_BITS
from convkit.rules.base import Check, DatasetFiles, ImageRef, Problem, RowFacts, Rule
from convkit.rules.lookup import (
    MOST_LISTED,
    Growing,
    first_places,
    image_paths,
    not_listed,
    quoted,
    runs,
    split_names,
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
MOST_DIFFERENT_BITS = 7
"""Of the 256 of a shape. One less than there are bands, so that two near shapes are equal in one band at least."""
_BANDS = 8
_MOST_NEIGHBOURS = 64
"""In a run of shapes that are equal in a band, each is compared with so many others; keeps the time in bounds."""
_WORDS = HASH_BITS // 64
_MOST_OF_SPLIT = 16
"""Images of one split that are looked at in a set of equal ones."""


class _Images(NamedTuple):
    """What was seen of images, one item each in all arrays; an image that two splits name comes twice."""

    splits: "Digests"
    """Indices, the training splits first."""
    sides: "Digests"
    """The same number for all training splits: what they share, nobody is tested on."""
    paths: "Digests"
    contents: "Digests"
    pixels: "Digests"
    shapes: "Digests"
    """(images, 4); zeros where there is none."""


class _Pair(NamedTuple):
    """Two items of `_Images`, of different sides; the first is of the earlier split."""

    one: int
    other: int


class SharedImages(Check):
    """CK307 to CK309. Keeps 56 bytes an image.

    A blank image gives nothing away: it counts only where both splits name the same file.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._split_of_file = split_names(dataset)
        self._splits = sorted(dict.fromkeys(self._split_of_file), key=lambda split: not is_training(split))
        self._named = {split: DigestSet() for split in self._splits}
        self._paths, self._contents, self._pixels, self._shapes = (Growing() for _ in range(4))

    def rows(self, facts: RowFacts) -> None:
        """Keep which images a split names."""
        self._named[self._split_of_file[facts.file]].add(facts.images)

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Keep what an image shows."""
        if len(self._splits) > 1:
            path = digest(image_ref.path.encode(), self.dataset.key)
            telling = image.sha256 is not None and not image.blank
            self._paths.add(path)
            self._contents.add(digest(str(image.sha256).encode(), self.dataset.key) if telling else path)
            self._pixels.add(image.pixel_digest if telling else path)
            shape = image.difference_hash.zfill(HASH_BITS // 4)
            self._shapes.add(*(int(shape[place : place + 16], 16) for place in range(0, len(shape), 16)))
        return ()

    def end(self) -> Iterator[Finding]:
        """Bring together what the splits have in common."""
        if len(self._splits) < 2:
            return
        images = self._by_split()
        equal = _equal(images)
        yield from self._tell(images, equal)
        yield from self._tell(images, _near(images))

    def _by_split(self) -> _Images:
        import numpy as np

        paths = self._paths.all()
        members = [np.flatnonzero(self._named[split].contains(paths)) for split in self._splits]
        chosen = np.concatenate(members)
        splits = np.repeat(np.arange(len(members), dtype=np.uint64), [len(member) for member in members])
        last_training = max(sum(map(is_training, self._splits)) - 1, 0)
        return _Images(
            splits=splits,
            sides=np.maximum(splits, last_training),
            paths=paths[chosen],
            contents=self._contents.all()[chosen],
            pixels=self._pixels.all()[chosen],
            shapes=self._shapes.all().reshape(-1, _WORDS)[chosen],
        )

    def _tell(self, images: _Images, pairs: list[_Pair]) -> Iterator[Finding]:
        """One finding for each pair, at the image of the later split."""

        def key(index: int) -> tuple[str, int]:
            return self._splits[int(images.splits[index])], int(images.paths[index])

        listed = pairs[:MOST_LISTED]
        found = first_places(self.dataset, {key(index) for pair in listed for index in pair}, image_paths)
        rule = NEAR_DUPLICATE
        for pair in listed:
            one, other = found.get(key(pair.one)), found.get(key(pair.other))
            if one and other:
                how = _how(images, pair)
                if how:
                    rule = LEAKED_IMAGE if is_training(key(pair.one)[0]) else SHARED_IMAGE
                at = f"{quoted(one.text)} of {one} in the split {key(pair.one)[0]}"
                message = f"{quoted(other.text)} {how or 'looks the same as'} {at}"
                yield other.location.finding(Problem(rule, message, other.pointer))
        yield from not_listed(self.dataset, rule, len(pairs))


def _how(images: _Images, pair: _Pair) -> str:
    """In what two images are equal; nothing if only near."""
    for column, how in (
        (images.paths, "is also"),
        (images.contents, "has the same bytes as"),
        (images.pixels, "has the same pixels as"),
    ):
        if column[pair.one] == column[pair.other]:
            return how
    return ""


def _equal(images: _Images) -> list[_Pair]:
    """For each picture, a pair of the first split that has it and each other one; the most equal ones."""
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

    groups = [equal[images.sides[equal] == split][:_MOST_OF_SPLIT].tolist() for split in np.unique(images.sides[equal])]
    first, *others = groups
    for group in others:
        pairs = [_Pair(one, other) for one in first for other in group]
        ranks = {"is also": 0, "has the same bytes as": 1}
        yield min(pairs, key=lambda pair: ranks.get(_how(images, pair), 2))


def _near(images: _Images) -> list[_Pair]:
    """For each image with near ones in an earlier split, one of them.

    Shapes are sorted by each band in turn and compared with their neighbours (multi-index hashing): n log n for what
    is not made to be near.
    """
    import numpy as np

    items = np.flatnonzero(images.shapes.any(axis=1))
    shapes = images.shapes[items]
    bands = shapes.view(np.uint32).reshape(-1, _BANDS)
    found: dict[int, _Pair] = {}
    for band in range(_BANDS):
        order = np.lexsort((bands[:, (band + 1) % _BANDS], bands[:, band]))
        values = bands[order, band]
        for distance in range(1, min(_MOST_NEIGHBOURS, len(order) - 1) + 1):
            (places,) = np.nonzero(values[distance:] == values[:-distance])
            if not len(places):
                break
            a, b = order[places], order[places + distance]
            for pair in _near_pairs(images, items, shapes, a, b):
                found.setdefault(pair.other, pair)
    return [pair for _, pair in sorted(found.items())]


def _near_pairs(images: _Images, items: "Indices", shapes: "Digests", a: "Indices", b: "Indices") -> Iterator[_Pair]:
    """Those of the pairs (a, b) that are near, but not equal, and of different sides."""
    import numpy as np

    one, other = items[a], items[b]
    candidates = (images.sides[one] != images.sides[other]) & (images.pixels[one] != images.pixels[other])
    one, other, a, b = one[candidates], other[candidates], a[candidates], b[candidates]
    bits = np.bitwise_count(shapes[a] ^ shapes[b]).sum(axis=1)
    for pair in zip(
        one[bits <= MOST_DIFFERENT_BITS].tolist(), other[bits <= MOST_DIFFERENT_BITS].tolist(), strict=True
    ):
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
    """CK310, one finding for each group and split but the first. Keeps eight bytes a group."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._split_of_file = split_names(dataset)
        self._groups = {split: DigestSet() for split in dict.fromkeys(self._split_of_file)}
        self._separated: dict[tuple[str, int], str] = {}
        self._count = 0

    def rows(self, facts: RowFacts) -> None:
        """Look for groups that another split has."""
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
                for group in new[separated].tolist()[: MOST_LISTED - len(self._separated)]:
                    self._separated[split, group] = other
                new = new[~separated]

    def end(self) -> Iterator[Finding]:
        """Name both places."""
        others = [(other, group) for (_, group), other in self._separated.items()]
        found = first_places(self.dataset, [*self._separated, *others], _group)
        for (split, group), other in self._separated.items():
            here, there = found.get((split, group)), found.get((other, group))
            if here and there:
                message = f"the group {quoted(here.text)} is also that of {there} in the split {other}"
                yield here.location.finding(Problem(SEPARATED_GROUP, message, here.pointer))
        yield from not_listed(self.dataset, SEPARATED_GROUP, self._count)


def _group(row: Row) -> Iterator[tuple[str, str]]:
    if row.group is not None:
        yield row.group, "/group"


RULES = (LEAKED_IMAGE, SHARED_IMAGE, NEAR_DUPLICATE, SEPARATED_GROUP)
CHECKS: tuple[type[Check], ...] = (SharedImages, SeparatedGroups)

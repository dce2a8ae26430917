"""Splitting a data set anew, such that nothing that belongs together is separated.

Rows belong together if they are of one group or show an image of equal bytes; rows that belong together to any others
go with these. A split is a conversion like any other, whose items are rows, so that resuming, accounting and the
manifest are those of `convkit.convert`. Rows stay as they are, with their ids and the paths of their images: a path
goes on naming the split that its row once had.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from convkit import layout
from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.dataset import Dataset, read_lines
from convkit.errors import DatasetError, ItemError, SourceError
from convkit.schema import Row
from convkit.utils.progress import Progress, ignore_progress
from convkit.utils.union_find import UnionFind

TOLERANCE = 1e-9
RARE = ""
"""The stratum of all answers that are too rare to be in every split."""


def _parse_ratios(value: object) -> object:
    """`train=0.8,val=0.1,test=0.1` as a mapping; what is no such text is left to the validator."""
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not (name.strip() and share.strip()) for name, _, share in parts):
        raise ValueError("write NAME=SHARE for each split, with commas between: train=0.8,val=0.1,test=0.1")
    names = [name.strip() for name, _, _ in parts]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} has two shares")
    return {name: share.strip() for name, (_, _, share) in zip(names, parts, strict=True)}


def _parse_names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Share = Annotated[float, Field(gt=0, le=1)]


class SplitOptions(Options):
    """Options of `convkit split`."""

    ratios: Annotated[dict[SplitName, Share], BeforeValidator(_parse_ratios)] = Field(
        description="The new splits and their shares of the rows, such as train=0.8,val=0.1,test=0.1."
    )
    seed: int = Field(0, description="Decides which rows go where.")
    stratify: bool = Field(True, description="Give every split its share of each answer, by the rows' last turns.")
    splits: Annotated[tuple[str, ...], BeforeValidator(_parse_names)] = Field(
        (), description="Splits to pool, separated by commas. Default: all that have answers."
    )
    link: bool = Field(False, exclude=True, description="Hard-link images instead of copying them, where possible.")

    @field_validator("ratios")
    @classmethod
    def _whole(cls, ratios: dict[str, float]) -> dict[str, float]:
        if abs(sum(ratios.values()) - 1) > TOLERANCE:
            raise ValueError(f"the shares add up to {sum(ratios.values()):g}, and must add up to 1")
        return ratios


@dataclass(frozen=True)
class RowItem(Item):
    """One row: where it stands in the source, and where it goes."""

    split: str
    file: str
    offset: int
    """Bytes before it in its file."""
    sha256: str
    """Of its line."""
    media: tuple[tuple[str, str], ...]
    """(path, sha256) of those of its images that no row before it names."""


@dataclass(frozen=True)
class Pooled:
    """A row before it is known where it goes."""

    row: RowItem
    id: str
    group: str | None
    answer: str | None
    images: frozenset[str]
    """Digests of its images."""


class Split(Converter[RowItem]):
    """The rows of a dataset directory, in other splits."""

    name = "split"
    unit = "row"
    version = 1
    Options = SplitOptions
    options: SplitOptions

    @property
    def dataset(self) -> str:
        """The name stays."""
        return self._source.manifest.name

    @cached_property
    def _source(self) -> Dataset:
        try:
            return Dataset.open(self.root)
        except DatasetError as error:
            raise SourceError(str(error)) from error

    def items(self) -> Iterator[RowItem | Reject | Exclude]:
        """The new splits in the order of the ratios, each in the order of the source.

        Every row, and every image of the splits that are pooled, is read.

        Raises:
            SourceError: the source is not sound, or too much of it belongs together for these ratios.
        """
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[RowItem | Reject | Exclude]:
        """The same."""
        read, total = 0, sum(split.rows for split in self._source.manifest.splits.values())
        pooled: list[Pooled] = []
        digests: dict[str, str] = {}
        left_out = dict.fromkeys(self._source.manifest.splits, "is not in --splits")
        for name in self._wanted():
            rows = []
            for row in self._rows(name, digests):
                rows.append(row)
                read += 1
                progress(read, total)
            if self.options.splits or any(row.answer is not None for row in rows):
                pooled += rows
                del left_out[name]
            else:
                left_out[name] = "has no answers"
        placed = self._place(pooled)  # whatever is wrong is told before anything is written
        for name, why in left_out.items():
            yield Exclude(f"of the split {name}, which {why}", self._source.manifest.splits[name].rows)
        for name in self.options.ratios:
            yield from (replace(row, split=name) for row, split in placed if split == name)

    def _wanted(self) -> tuple[str, ...]:
        known = self._source.manifest.splits
        if unknown := [name for name in self.options.splits if name not in known]:
            raise SourceError(f"{self.root} has no split {', '.join(unknown)}. Its splits: {', '.join(known)}.")
        return tuple(name for name in known if name in self.options.splits or not self.options.splits)

    def _rows(self, split: str, digests: dict[str, str]) -> Iterator[Pooled]:
        """The rows of a split, in order.

        Args:
            digests: of all images so far, by path; the new ones are added.
        """
        path, digest, offset = self._source.path(split), hashlib.sha256(), 0
        try:
            rows = zip(self._source.rows(split), read_lines(path, watch=digest.update), strict=True)
            for (address, row), line in rows:
                item = RowItem(
                    address=f"{path.name}:{address.rpartition(':')[2]}",
                    split="",
                    file=path.name,
                    offset=offset,
                    sha256=hashlib.sha256(line.raw).hexdigest(),
                    media=tuple(self._read_images(row, digests)),
                )
                images = frozenset(digests[image] for image in _images(row))
                yield Pooled(item, row.id, row.group, row.conversations[-1].assistant, images)
                offset += len(line.raw) + 1
        except DatasetError as error:
            raise SourceError(str(error)) from error
        if digest.hexdigest() != self._source.manifest.splits[split].sha256:
            raise SourceError(
                f"{path} is not the file that the manifest describes. Run `convkit validate {self.root}`, "
                "and restore it or convert its source again."
            )

    def _read_images(self, row: Row, digests: dict[str, str]) -> Iterator[tuple[str, str]]:
        """(path, digest) of each image of a row that is not in `digests` yet; then it is."""
        for path in _images(row):
            if path not in digests:
                digests[path] = _digest(self.root / layout.IMAGES, path)
                yield path, digests[path]

    def _place(self, pooled: Sequence[Pooled]) -> list[tuple[RowItem, str]]:
        """Each row with its new split."""
        bundles = _bundles(pooled)
        strata = [
            Counter((row.answer or RARE) if self.options.stratify else RARE for row in bundle) for bundle in bundles
        ]
        split_of = assign(strata, [min(row.id for row in bundle) for bundle in bundles], self.options)
        _refuse_empty(self.options.ratios, split_of, bundles)
        named = {row.row: split for bundle, split in zip(bundles, split_of, strict=True) for row in bundle}
        return [(row.row, named[row.row]) for row in pooled]

    def convert(self, item: RowItem) -> Record:
        """The row, unchanged, with its images."""
        with (self.root / item.file).open("rb") as file:
            file.seek(item.offset)
            line = file.readline().rstrip(b"\n")
        if hashlib.sha256(line).hexdigest() != item.sha256:
            raise ItemError("changed-row", "the row has changed while the data set was split")
        images = self.root / layout.IMAGES
        media = {
            path: images / path if self.options.link else _unchanged(images, path, sha) for path, sha in item.media
        }
        return Record(item.split, (Row.model_validate_json(line),), media)


def assign(strata: Sequence[Counter[str]], names: Sequence[str], options: SplitOptions) -> list[str]:
    """Choose a split for each bundle of rows, whatever their order.

    In the order of a hash, a bundle goes where it brings the answers' shares closest to the ratios (by chi-square),
    among the splits that still have room for all its rows; where none has, to the one that lacks most rows. So each
    split gets its share of the rows, give or take less than the largest bundle.

    Args:
        strata: for each bundle, how many of its rows have each answer.
        names: a name for each bundle that does not depend on the order of rows.
    """
    ratios = options.ratios
    strata = _merge_rare(strata, min(ratios.values()))
    total = _sum(strata)
    lack = {split: ratio * total.total() for split, ratio in ratios.items()}
    given: dict[str, Counter[str]] = {split: Counter() for split in ratios}

    def cost(split: str, bundle: Counter[str]) -> float:
        terms = ((count, ratios[split] * total[a], given[split][a]) for a, count in sorted(bundle.items()))
        return sum(count * (2 * (has - share) + count) / share for count, share, has in terms)

    chosen: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda i: (_hash(options.seed, names[i]), names[i])):
        bundle = strata[index]
        room = [split for split in ratios if lack[split] >= bundle.total() - TOLERANCE * total.total()]
        split = min(room, key=lambda s: cost(s, bundle)) if room else max(ratios, key=lambda s: lack[s])
        chosen[index] = split
        given[split].update(bundle)
        lack[split] -= bundle.total()
    return [chosen[index] for index in range(len(names))]


def _sum(strata: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in strata:
        total.update(counts)
    return total


def _merge_rare(strata: Sequence[Counter[str]], least: float) -> list[Counter[str]]:
    """Take answers together that have no whole row for the smallest split: each by itself would go to the largest."""
    total = _sum(strata)
    merged = []
    for bundle in strata:
        counts: Counter[str] = Counter()
        for answer, count in bundle.items():
            counts[answer if total[answer] * least >= 1 - TOLERANCE else RARE] += count
        merged.append(counts)
    return merged


def _bundles(pooled: Sequence[Pooled]) -> list[list[Pooled]]:
    """The rows that belong together, in the order of their first ones."""
    sets = UnionFind[Hashable]()
    for number, row in enumerate(pooled):
        sets.join(number, (("image", digest) for digest in row.images))
        sets.join(number, [("group", row.group)] if row.group is not None else [])
    bundles: dict[Hashable, list[Pooled]] = defaultdict(list)
    for number, row in enumerate(pooled):
        bundles[sets.find(number)].append(row)
    return list(bundles.values())


def _refuse_empty(ratios: Mapping[str, float], split_of: Sequence[str], bundles: Sequence[Sequence[Pooled]]) -> None:
    rows, largest = sum(map(len, bundles)), max(map(len, bundles), default=0)
    if empty := next((split for split in ratios if split not in split_of), None):
        raise SourceError(
            f"the split {empty} would be empty: its share is {ratios[empty]:g} of {rows} rows, which are "
            f"{len(bundles)} groups that cannot be separated, the largest of {largest} rows. "
            "Give it a larger share in --ratios."
        )


def _images(row: Row) -> list[str]:
    return [image for turn in row.conversations for image in turn.images]


def _digest(images: Path, path: str) -> str:
    """The digest of an image, which must lie in the data set itself.

    Raises:
        SourceError: it does not.
    """
    try:
        real = (images / path).resolve(strict=True)
        if real.is_relative_to(images.resolve()):
            with real.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        problem = "leads out of it"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise SourceError(
        f"the image {path!r} of {images} {problem}. Run `convkit validate {images.parent}` to see all findings."
    )


def _unchanged(images: Path, path: str, sha256: str) -> bytes:
    data = (images / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ItemError("changed-image", f"the image {path!r} has changed while the data set was split")
    return data


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()

"""Divide a dataset into new splits without data leakage: rows that belong together stay in one split.

Rows belong together if they have the same group or show an image with the same bytes, also through other rows. A split
is a conversion whose items are rows, so resuming, accounting and the manifest come from `convkit.convert`. Rows, ids
and image paths do not change, so a path may contain the name of the row's former split.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from convkit import layout
from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.dataset import Dataset, read_lines
from convkit.errors import DatasetError, ItemError, SourceError
from convkit.schema import Row
from convkit.utils.callable_module import make_callable
from convkit.utils.progress import Progress, ignore_progress
from convkit.utils.union_find import UnionFind

TOLERANCE = 1e-9
RARE = ""
"""The stratum that pools all answers too rare to appear in every split."""


_EXAMPLE = "train=0.8,val=0.1,test=0.1"


def _parse_ratios(value: object) -> object:
    """Parse `train=0.8,val=0.2`, or percentages as in `train=80,val=20`; leave other types to the validator."""
    if not isinstance(value, str):
        return value
    parts = [[side.strip() for side in part.split("=")] for part in value.split(",") if part.strip()]
    if any(len(part) != 2 or not all(part) for part in parts):
        raise ValueError(f"write NAME=SHARE for each split, with commas between: {_corrected(value)}")
    names = [name for name, _ in parts]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{repeated} has two shares")
    shares = [share for _, text in parts if (share := _share(text)) is not None]
    if len(shares) < len(names):
        raise ValueError(f"write a number for each share: {_corrected(value)}")
    fractions = _fractions(shares)
    if min(fractions, default=0) > 0 and max(fractions) > 1:
        raise ValueError(_wrong_sum(float(sum(shares))))
    return dict(zip(names, fractions, strict=True))


def _share(text: str) -> Decimal | None:
    """Return the number in a share such as 0.8, 80 or 80%; None if there is none."""
    return Decimal(text.removesuffix("%")) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)%?", text) else None


def _fractions(shares: Sequence[Decimal]) -> list[Decimal]:
    """Return shares as fractions of 1; shares that add up to 100 are percentages."""
    return [share / 100 for share in shares] if sum(shares) == 100 else list(shares)


def _corrected(value: str) -> str:
    """Return the ratios that the text probably means, in the right form; an example if that is unclear."""
    words = re.split(r"[=:,;/\s]+", value.strip())
    shares = [share for word in words if (share := _share(word)) is not None]
    names = [word for word in words if _share(word) is None] or ["train", "val", "test"][: len(shares)]
    fractions = _fractions(shares)
    if len(names) != len(shares) or sum(fractions) != 1:
        return _EXAMPLE
    return ",".join(f"{name}={share.normalize():f}" for name, share in zip(names, fractions, strict=True))


def _wrong_sum(total: float) -> str:
    return f"the shares add up to {total:g}, and must add up to 1 (or 100), as in {_EXAMPLE}"


def _parse_names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Share = Annotated[float, Field(gt=0, le=1)]


class SplitOptions(Options):
    """The options of `convkit split`."""

    ratios: Annotated[dict[SplitName, Share], BeforeValidator(_parse_ratios)] = Field(
        description="The new splits and their shares of the rows: train=0.8,val=0.1,test=0.1 or train=80,val=20."
    )
    seed: int = Field(0, description="Seed of the assignment of rows to splits.")
    stratify: bool = Field(True, description="Keep the share of each (last) answer equal in all splits.")
    splits: Annotated[tuple[str, ...], BeforeValidator(_parse_names)] = Field(
        (), description="Splits to pool, comma-separated. Default: all that have answers."
    )
    link: bool = Field(False, exclude=True, description="Hard-link images instead of copying them, where possible.")

    @field_validator("ratios")
    @classmethod
    def _sum_to_one(cls, ratios: dict[str, float]) -> dict[str, float]:
        if abs(sum(ratios.values()) - 1) > TOLERANCE:
            raise ValueError(_wrong_sum(sum(ratios.values())))
        return ratios


@dataclass(frozen=True)
class RowItem(Item):
    """One row: its position in the source, and its new split."""

    split: str
    file: str
    offset: int
    """The number of bytes before the row in its file."""
    sha256: str
    """The digest of the row's line."""
    media: tuple[tuple[str, str], ...]
    """(path, sha256) of each image of the row that no earlier row names."""


@dataclass(frozen=True)
class PooledRow:
    """A row that has no new split yet."""

    row: RowItem
    id: str
    group: str | None
    answer: str | None
    images: frozenset[str]
    """The digests of the row's images."""


class Split(Converter[RowItem]):
    """Convert the rows of a dataset directory into new splits."""

    name = "split"
    unit = "row"
    version = 1
    Options = SplitOptions
    options: SplitOptions

    @property
    def dataset_name(self) -> str:
        """The name of the source dataset, which does not change."""
        return self._source.manifest.name

    @cached_property
    def _source(self) -> Dataset:
        try:
            return Dataset.open(self.root)
        except DatasetError as error:
            raise SourceError(str(error)) from error

    def items(self) -> Iterator[RowItem | Reject | Exclude]:
        """Yield the rows in the order of the ratios, and within each split in the order of the source.

        Reads every row, and every image of the splits that are pooled.

        Raises:
            SourceError: the source is invalid, or its groups are too large for these ratios.
        """
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[RowItem | Reject | Exclude]:
        """Yield the rows as `items` does, and report the progress of the reading."""
        read, total = 0, sum(split.rows for split in self._source.manifest.splits.values())
        pooled: list[PooledRow] = []
        digests: dict[str, str] = {}
        excluded = dict.fromkeys(self._source.manifest.splits, "is not in --splits")
        for name in self._pooled_splits():
            rows = []
            for row in self._rows(name, digests):
                rows.append(row)
                read += 1
                progress(read, total)
            if self.options.splits or any(row.answer is not None for row in rows):
                pooled += rows
                del excluded[name]
            else:
                excluded[name] = "has no answers"
        placed = self._place(pooled)  # fails, if it does, before anything is written
        for name, reason in excluded.items():
            yield Exclude(f"of the split {name}, which {reason}", self._source.manifest.splits[name].rows)
        for name in self.options.ratios:
            yield from (replace(row, split=name) for row, split in placed if split == name)

    def _pooled_splits(self) -> tuple[str, ...]:
        known = self._source.manifest.splits
        if unknown := [name for name in self.options.splits if name not in known]:
            raise SourceError(f"{self.root} has no split {', '.join(unknown)}. Its splits: {', '.join(known)}.")
        return tuple(name for name in known if name in self.options.splits or not self.options.splits)

    def _rows(self, split: str, digests: dict[str, str]) -> Iterator[PooledRow]:
        """Yield the rows of a split in order.

        Args:
            digests: the digests of all images so far by path; new images are added.
        """
        path, digest, offset = self._source.path(split), hashlib.sha256(), 0
        try:
            rows = zip(self._source.rows(split), read_lines(path, on_block=digest.update), strict=True)
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
                yield PooledRow(item, row.id, row.group, row.conversations[-1].assistant, images)
                offset += len(line.raw) + 1
        except DatasetError as error:
            raise SourceError(str(error)) from error
        if digest.hexdigest() != self._source.manifest.splits[split].sha256:
            raise SourceError(
                f"{path} is not the file that the manifest describes. Run `convkit validate {self.root}`, "
                "and restore it or convert its source again."
            )

    def _read_images(self, row: Row, digests: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Yield (path, digest) of each image of a row that is not in `digests` yet, and add it there."""
        for path in _images(row):
            if path not in digests:
                digests[path] = _digest(self.root / layout.IMAGES, path)
                yield path, digests[path]

    def _place(self, pooled: Sequence[PooledRow]) -> list[tuple[RowItem, str]]:
        """Return each row with its new split."""
        bundles = _bundles(pooled)
        strata = [
            Counter((row.answer or RARE) if self.options.stratify else RARE for row in bundle) for bundle in bundles
        ]
        split_of = assign(strata, [min(row.id for row in bundle) for bundle in bundles], self.options)
        _refuse_empty(self.options.ratios, split_of, bundles)
        split_of_row = {row.row: split for bundle, split in zip(bundles, split_of, strict=True) for row in bundle}
        return [(row.row, split_of_row[row.row]) for row in pooled]

    def convert(self, item: RowItem) -> Record:
        """Return the unchanged row with its images."""
        with (self.root / item.file).open("rb") as file:
            file.seek(item.offset)
            line = file.readline().rstrip(b"\n")
        if hashlib.sha256(line).hexdigest() != item.sha256:
            raise ItemError("changed-row", "the row changed while the dataset was being split")
        images = self.root / layout.IMAGES
        media = {
            path: images / path if self.options.link else _unchanged(images, path, sha) for path, sha in item.media
        }
        return Record(item.split, (Row.model_validate_json(line),), media)


def assign(strata: Sequence[Counter[str]], names: Sequence[str], options: SplitOptions) -> list[str]:
    """Choose a split for each bundle of rows, independent of the order of the bundles.

    Bundles are taken in the order of a hash. Each goes to the split where it brings the shares of the answers closest
    to the ratios (by chi-square), among the splits that still have room for all its rows. If none has room, it goes to
    the split that misses most rows. The size of each split differs from its share by less than the largest bundle.

    Args:
        strata: the number of rows per answer, for each bundle.
        names: a name per bundle that does not depend on the order of rows.
    """
    ratios = options.ratios
    strata = _merge_rare(strata, min(ratios.values()))
    total = _sum(strata)
    missing = {split: ratio * total.total() for split, ratio in ratios.items()}
    assigned: dict[str, Counter[str]] = {split: Counter() for split in ratios}

    def cost(split: str, bundle: Counter[str]) -> float:
        terms = ((count, ratios[split] * total[a], assigned[split][a]) for a, count in sorted(bundle.items()))
        return sum(count * (2 * (has - share) + count) / share for count, share, has in terms)

    chosen: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda i: (_hash(options.seed, names[i]), names[i])):
        bundle = strata[index]
        room = [split for split in ratios if missing[split] >= bundle.total() - TOLERANCE * total.total()]
        split = min(room, key=lambda s: cost(s, bundle)) if room else max(ratios, key=lambda s: missing[s])
        chosen[index] = split
        assigned[split].update(bundle)
        missing[split] -= bundle.total()
    return [chosen[index] for index in range(len(names))]


def _sum(strata: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counts in strata:
        total.update(counts)
    return total


def _merge_rare(strata: Sequence[Counter[str]], least: float) -> list[Counter[str]]:
    """Pool answers with less than one row for the smallest split, which would all go to the largest one."""
    total = _sum(strata)
    merged = []
    for bundle in strata:
        counts: Counter[str] = Counter()
        for answer, count in bundle.items():
            counts[answer if total[answer] * least >= 1 - TOLERANCE else RARE] += count
        merged.append(counts)
    return merged


def _bundles(pooled: Sequence[PooledRow]) -> list[list[PooledRow]]:
    """Return the bundles of rows that belong together, in the order of their first rows."""
    sets = UnionFind[Hashable]()
    for number, row in enumerate(pooled):
        sets.join(number, (("image", digest) for digest in row.images))
        sets.join(number, [("group", row.group)] if row.group is not None else [])
    bundles: dict[Hashable, list[PooledRow]] = defaultdict(list)
    for number, row in enumerate(pooled):
        bundles[sets.find(number)].append(row)
    return list(bundles.values())


def _refuse_empty(ratios: Mapping[str, float], split_of: Sequence[str], bundles: Sequence[Sequence[PooledRow]]) -> None:
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
    """Return the digest of an image, which must lie inside the dataset.

    Raises:
        SourceError: the image is outside the dataset or unreadable.
    """
    try:
        real = (images / path).resolve(strict=True)
        if real.is_relative_to(images.resolve()):
            with real.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        problem = "is outside of it"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise SourceError(
        f"the image {path!r} of {images} {problem}. Run `convkit validate {images.parent}` to see all findings."
    )


def _unchanged(images: Path, path: str, sha256: str) -> bytes:
    data = (images / path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ItemError("changed-image", f"the image {path!r} changed while the dataset was being split")
    return data


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


make_callable(__name__)

"""The converter behind `convkit split`: items are rows, grouped so that no group is divided."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
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
from convkit.split.assign import RARE, TOLERANCE, assign, bundle_rows, refuse_empty_splits
from convkit.split.ratios import parse_ratios, wrong_sum
from convkit.utils.progress import Progress, ignore_progress


def _parse_names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Share = Annotated[float, Field(gt=0, le=1)]


class SplitOptions(Options):
    """The options of `convkit split`."""

    ratios: Annotated[dict[SplitName, Share], BeforeValidator(parse_ratios)] = Field(
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
            raise ValueError(wrong_sum(sum(ratios.values())))
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
        bundles = bundle_rows(pooled)
        strata = [
            Counter((row.answer or RARE) if self.options.stratify else RARE for row in bundle) for bundle in bundles
        ]
        split_of = assign(strata, [min(row.id for row in bundle) for bundle in bundles], self.options)
        refuse_empty_splits(self.options.ratios, split_of, bundles)
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

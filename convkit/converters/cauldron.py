"""Convert conversations about images in Parquet files: the datasets of The Cauldron, and chats in TRL's format.

See `convkit.converters.chats` for the layouts and `convkit.converters.parquet` for the file names of splits. Splits
that the source lacks are split off from train.

Rows that share an equal image, directly or through other rows, form one group, and new splits keep groups together. If
no row has more than one image, according to the Parquet metadata, a row's image alone gives its group. Otherwise all
images are read once more while the source is listed. This keeps 8 bytes per row in memory, and a few hundred for each
different image of a row with several.
"""

import hashlib
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from convkit.converters import chats, image_store, parquet
from convkit.converters.base import Converter, Exclude, Item, Record, Reject, schema_error
from convkit.converters.chats import Example
from convkit.converters.image_store import IMAGE_SUFFIXES, ImageOptions
from convkit.converters.parquet import RowGroup
from convkit.errors import ConvkitError, ItemError, SourceError
from convkit.schema import Row, Turn
from convkit.utils.progress import Progress, ignore_progress
from convkit.utils.union_find import UnionFind


class CauldronOptions(ImageOptions):
    """Options of the `cauldron` converter."""

    config: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]+$", description="Dataset of The Cauldron to download if --source is not given."
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Dataset name in rows and file names. Default: the name given by --config, or cauldron.",
    )
    val_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of train's images to split off as val if the source has no val split; 0: none.",
    )
    test_fraction: float = Field(
        0,
        ge=0,
        lt=1,
        description="Fraction of train's images to split off as test if the source has no test split; 0: none.",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of rows per split of the source.")
    seed: int = Field(0, description="Random seed for selecting the images of val and test.")

    @field_validator("test_fraction")
    @classmethod
    def _check_fractions(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("val_fraction", 0) >= 1:
            raise ValueError("together with --val_fraction, it leaves nothing for train")
        return value


@dataclass(frozen=True)
class Rows(Item):
    """Hold a row group and the splits of its rows."""

    group: RowGroup
    split: str
    carved: tuple[str, ...]
    """The new splits that receive some of its rows."""
    images: tuple[int, ...] = ()
    """For each row, the digest that identifies its group; empty if every row has at most one image."""

    @property
    def units(self) -> int:
        """Return the number of rows."""
        return self.group.rows


class Cauldron(Converter[Rows]):
    """Convert each row to a conversation. Rows with an equal image form one group, which new splits keep together."""

    name = "cauldron"
    unit = "row"
    version = 3
    Options = CauldronOptions
    default_source = "hub:HuggingFaceM4/the_cauldron/CONFIG/*.parquet"
    suffixes = frozenset([parquet.SUFFIX, *IMAGE_SUFFIXES])
    imports = ("pyarrow.parquet", *image_store.WORKER_IMPORTS)
    options: CauldronOptions

    @classmethod
    def default_source_for(cls, options: CauldronOptions) -> str:
        """Return the address of the dataset named by `--config`.

        Raises:
            ConvkitError: `--config` is missing.
        """
        if options.config is None:
            raise ConvkitError(
                "Neither --source nor --config is given. Pass --config NAME to download a dataset of The Cauldron, "
                "such as docvqa, or --source with Parquet files."
            )
        return cls.default_source.replace("CONFIG", options.config)

    @property
    def dataset_name(self) -> str:
        """The dataset name from `--name`, or from `--config`."""
        return self.options.name or self.options.config or self.name

    def count(self) -> int:
        """Return the number of rows. This opens every file, so a damaged file is reported at once."""
        return sum(part.units for part in self._row_groups())

    def items(self) -> Iterator[Rows | Exclude]:
        """Yield row groups in the order of file names; those beyond the limit are excluded or shortened."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Rows | Exclude]:
        """Yield `items` and report progress while images are hashed."""
        parts = list(self._row_groups())
        groups = [part.group for part in parts if isinstance(part, Rows)]
        if not any(group.several for group in groups):
            yield from parts
            return
        linked = iter(self._linked_digests(groups, progress))
        for part in parts:
            yield replace(part, images=next(linked)) if isinstance(part, Rows) else part

    def _linked_digests(self, groups: Sequence[RowGroup], progress: Progress) -> Iterator[tuple[int, ...]]:
        """Yield the value of `Rows.images` for each row group."""
        sets = UnionFind[int]()
        firsts = []
        read, total = 0, sum(group.rows for group in groups)
        for group in groups:
            first = array("Q")
            for digests in self._digests(group):
                first.append(digests[0] if digests else 0)
                sets.join(first[-1], digests[1:])
            firsts.append(first)
            read += group.rows
            progress(read, total)
        return (tuple(map(sets.find, first)) for first in firsts)

    def _digests(self, group: RowGroup) -> Iterator[list[int]]:
        """Yield the digests of each row's images, without images that will be quarantined with their rows."""
        try:
            for _, row in parquet.read_rows(self.root, group, (group.images,)):
                values = [] if isinstance(row, ItemError) else parquet.row_images(group, row)
                yield list(chain.from_iterable(map(self._digest, values)))
        except ItemError:
            return  # these rows cannot be converted either

    def _digest(self, value: Any) -> tuple[int, ...]:
        try:
            return (image_store.image_digest(parquet.resolve_image(self.root, 0, value)),)
        except (ItemError, OSError):
            return ()

    def _row_groups(self) -> Iterator[Rows | Exclude]:
        files = parquet.list_files(self.root)
        if not files:
            raise SourceError(
                f"{self.root} contains no Parquet files. Looked for *{parquet.SUFFIX}, at any depth, with the columns "
                "images and texts, or images and messages. Pass a folder with such files."
            )
        present = {parquet.split_prefix(file) for file in files}
        missing = tuple(split for split in ("val", "test") if split not in present)
        remaining = dict.fromkeys(map(parquet.split_name, files), self.options.limit or sys.maxsize)
        for file in files:
            split = parquet.split_name(file)
            for group in parquet.row_groups(self.root, file, chats.LAYOUTS):
                taken = min(remaining[split], group.rows)
                remaining[split] -= taken
                if taken:
                    part = replace(group, rows=taken)
                    yield Rows(group.address, part, split, missing if split == "train" else ())
                if taken < group.rows:
                    yield Exclude("beyond --limit", group.rows - taken)

    def convert(self, item: Rows) -> Iterator[Record | Reject]:
        """Read and convert the rows one by one, one record per row."""
        for number, row in parquet.read_rows(self.root, item.group):
            address = f"{item.group.file}:{number}"
            try:
                if isinstance(row, ItemError):
                    raise row
                yield self._record(item, number, row)
            except ItemError as error:
                yield Reject(address, error.rule, error.reason)
            except ValidationError as error:
                yield Reject(address, "invalid-row", schema_error(error))
            except OSError as error:
                yield Reject(address, "unreadable-image", f"an image cannot be read: {error.strerror or error}")

    def _record(self, item: Rows, number: int, row: parquet.RawRow) -> Record:
        example = chats.parse_example(item.group, row)
        images = [parquet.resolve_image(self.root, k, v) for k, v in enumerate(parquet.row_images(item.group, row))]
        group = _group_name(item, number, images, example)
        split = self._choose_split(item, group)
        stem = item.group.file.removesuffix(parquet.SUFFIX)
        stored = [
            image_store.store_image(image, f"{split}/{stem}-{number:07d}-{k}", self.options)
            for k, image in enumerate(images)
        ]
        converted = Row(
            id=f"{split}-{stem}-{number}",
            source=self.dataset_name,
            conversations=_turns(example, [image.path for image in stored]),
            group=group,
            **_without_none(system=example.system, metadata=example.metadata or None),
        )
        media = {image.path: image.content for image in stored}
        return Record(split, (converted,), media, notes=tuple(note for image in stored for note in image.notes))

    def _choose_split(self, item: Rows, group: str) -> str:
        """Choose the split from a hash of the group alone, so no other rows need to be known."""
        digest = hashlib.sha256(f"{self.options.seed}/{group}".encode()).digest()
        position = int.from_bytes(digest[:8]) / 2**64
        for split, share in (("val", self.options.val_fraction), ("test", self.options.test_fraction)):
            if split in item.carved:
                if position < share:
                    return split
                position -= share
        return item.split


def _group_name(item: Rows, number: int, images: list[parquet.ImageSource], example: Example) -> str:
    """Return the group of a row, from all images that it is linked to, or from its text if it has none.

    Raises:
        OSError: an image cannot be read.
    """
    if images:
        linked = item.images[number - item.group.first] if item.images else image_store.image_digest(images[0])
        return image_store.image_group(linked)
    digest = hashlib.sha256(repr([(turn.user, turn.assistant) for turn in example.turns]).encode())
    return f"text-{digest.hexdigest()[:16]}"


def _turns(example: Example, paths: list[str]) -> tuple[Turn, ...]:
    turns = []
    used = 0
    for turn in example.turns:
        images = tuple(paths[used : used + turn.images])
        used += turn.images
        turns.append(Turn(images=images, user=turn.user, assistant=turn.assistant))
    return tuple(turns)


def _without_none(**values: Any) -> dict[str, Any]:
    """Return the values that are not None, since the schema has no null."""
    return {name: value for name, value in values.items() if value is not None}

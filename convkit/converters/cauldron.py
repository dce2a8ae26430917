"""Conversations on images in Parquet files: The Cauldron's sets, TRL's chats.

Layouts: see `convkit.converters.chats`; the files' names tell the splits, see `convkit.converters.parquet`. From
train, the splits that the source lacks are carved.

Rows that show an equal image, directly or through other rows, are one group, and what is carved separates none. Where
no row has more than one image, as the files' metadata tell, a row's group follows from its image alone. Else all images
are read once more while the source is listed; what is kept of them is eight bytes a row, and a few hundred for each
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

from convkit.converters import chats, parquet, pictures
from convkit.converters.base import Converter, Exclude, Item, Record, Reject, broken_schema
from convkit.converters.chats import Example
from convkit.converters.parquet import RowGroup
from convkit.converters.pictures import IMAGE_SUFFIXES, PictureOptions
from convkit.errors import ConvkitError, ItemError, SourceError
from convkit.schema import Row, Turn
from convkit.utils.progress import Progress, ignore_progress
from convkit.utils.union_find import UnionFind


class CauldronOptions(PictureOptions):
    """Options of `cauldron`."""

    config: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]+$", description="The set of The Cauldron to download where no --source is given."
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the data set in rows and file names. Default: that of --config, or cauldron.",
    )
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of train's images that become val where the source has no val; 0: none."
    )
    test_fraction: float = Field(
        0, ge=0, lt=1, description="Share of train's images that become test where the source has no test; 0: none."
    )
    limit: int | None = Field(None, ge=1, description="At most this many rows of each split of the source.")
    seed: int = Field(0, description="Decides which images become val and test.")

    @field_validator("test_fraction")
    @classmethod
    def _train_is_left(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("val_fraction", 0) >= 1:
            raise ValueError("with --val_fraction, nothing is left for train")
        return value


@dataclass(frozen=True)
class Rows(Item):
    """A row group, and where its rows go."""

    group: RowGroup
    split: str
    carved: tuple[str, ...]
    """The splits that are made of some of its rows."""
    images: tuple[int, ...] = ()
    """For each row, the digest that stands for all images it is bound to; empty where it is that of its only one."""

    @property
    def units(self) -> int:
        """Its rows."""
        return self.group.rows


class Cauldron(Converter[Rows]):
    """Each row is a conversation; rows that show an equal image are one group, which no carved split separates."""

    name = "cauldron"
    unit = "row"
    version = 3
    Options = CauldronOptions
    default_source = "hub:HuggingFaceM4/the_cauldron/CONFIG/*.parquet"
    suffixes = frozenset([parquet.SUFFIX, *IMAGE_SUFFIXES])
    imports = ("pyarrow.parquet", *pictures.IMPORTS)
    options: CauldronOptions

    @classmethod
    def default_source_for(cls, options: CauldronOptions) -> str:
        """The set that `--config` names.

        Raises:
            ConvkitError: it names none.
        """
        if options.config is None:
            raise ConvkitError(
                "Neither --source nor --config is given. Pass --config NAME to download a set of The Cauldron, such as "
                "docvqa, or --source with Parquet files."
            )
        return cls.default_source.replace("CONFIG", options.config)

    @property
    def dataset_name(self) -> str:
        """As `--name` says, or `--config`."""
        return self.options.name or self.options.config or self.name

    def count(self) -> int:
        """The number of rows; every file is opened for it, so that a damaged one is told of at once."""
        return sum(part.units for part in self._parts())

    def items(self) -> Iterator[Rows | Exclude]:
        """Row groups in the order of file names; those beyond the limit are left out, or cut."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Rows | Exclude]:
        """The same."""
        parts = list(self._parts())
        groups = [part.group for part in parts if isinstance(part, Rows)]
        if not any(group.several for group in groups):
            yield from parts
            return
        bound = iter(self._bound(groups, progress))
        for part in parts:
            yield replace(part, images=next(bound)) if isinstance(part, Rows) else part

    def _bound(self, groups: Sequence[RowGroup], progress: Progress) -> Iterator[tuple[int, ...]]:
        """For each row group, what `Rows.images` says."""
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
        """Those of each row's images, but for images that will be refused with their rows."""
        try:
            for _, row in parquet.rows(self.root, group, (group.images,)):
                values = [] if isinstance(row, ItemError) else parquet.images_of(group, row)
                yield list(chain.from_iterable(map(self._digest, values)))
        except ItemError:
            return  # neither will these rows be read when they are to be converted

    def _digest(self, value: Any) -> tuple[int, ...]:
        try:
            return (pictures.digest_of(parquet.image(self.root, 0, value)),)
        except (ItemError, OSError):
            return ()

    def _parts(self) -> Iterator[Rows | Exclude]:
        files = parquet.files(self.root)
        if not files:
            raise SourceError(
                f"{self.root} holds no Parquet files. Looked for *{parquet.SUFFIX}, at any depth, with the columns "
                "images and texts, or images and messages. Pass a folder that has some."
            )
        present = {parquet.split_word(file) for file in files}
        lacking = tuple(split for split in ("val", "test") if split not in present)
        left = dict.fromkeys(map(parquet.split_of, files), self.options.limit or sys.maxsize)
        for file in files:
            split = parquet.split_of(file)
            for group in parquet.row_groups(self.root, file, chats.LAYOUTS):
                taken = min(left[split], group.rows)
                left[split] -= taken
                if taken:
                    part = replace(group, rows=taken)
                    yield Rows(group.address, part, split, lacking if split == "train" else ())
                if taken < group.rows:
                    yield Exclude("beyond --limit", group.rows - taken)

    def convert(self, item: Rows) -> Iterator[Record | Reject]:
        """One record a row, read when it is asked for."""
        for number, row in parquet.rows(self.root, item.group):
            address = f"{item.group.file}:{number}"
            try:
                if isinstance(row, ItemError):
                    raise row
                yield self._record(item, number, row)
            except ItemError as error:
                yield Reject(address, error.rule, error.reason)
            except ValidationError as error:
                yield Reject(address, "invalid-row", broken_schema(error))
            except OSError as error:
                yield Reject(address, "unreadable-image", f"an image cannot be read: {error.strerror or error}")

    def _record(self, item: Rows, number: int, row: parquet.RawRow) -> Record:
        example = chats.example(item.group, row)
        images = [parquet.image(self.root, k, v) for k, v in enumerate(parquet.images_of(item.group, row))]
        group = _group(item, number, images, example)
        split = self._split(item, group)
        stem = item.group.file.removesuffix(parquet.SUFFIX)
        stored = [
            pictures.bring(image, f"{split}/{stem}-{number:07d}-{k}", self.options) for k, image in enumerate(images)
        ]
        conversation = Row(
            id=f"{split}-{stem}-{number}",
            source=self.dataset_name,
            conversations=_turns(example, [picture.path for picture in stored]),
            group=group,
            **_present(system=example.system, metadata=example.metadata or None),
        )
        media = {picture.path: picture.content for picture in stored}
        return Record(split, (conversation,), media, notes=tuple(note for picture in stored for note in picture.notes))

    def _split(self, item: Rows, group: str) -> str:
        """The group's place between 0 and 1 decides, so that nothing need be known of the other rows."""
        digest = hashlib.sha256(f"{self.options.seed}/{group}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        for split, share in (("val", self.options.val_fraction), ("test", self.options.test_fraction)):
            if split in item.carved:
                if place < share:
                    return split
                place -= share
        return item.split


def _group(item: Rows, number: int, images: list[parquet.Image], example: Example) -> str:
    """By all images that a row is bound to, else by its text.

    Raises:
        OSError: an image cannot be read.
    """
    if images:
        bound = item.images[number - item.group.first] if item.images else pictures.digest_of(images[0])
        return pictures.group_of(bound)
    digest = hashlib.sha256(repr([(turn.user, turn.assistant) for turn in example.turns]).encode())
    return f"text-{digest.hexdigest()[:16]}"


def _turns(example: Example, paths: list[str]) -> tuple[Turn, ...]:
    turns = []
    shown = 0
    for turn in example.turns:
        images = tuple(paths[shown : shown + turn.images])
        shown += turn.images
        turns.append(Turn(images=images, user=turn.user, assistant=turn.assistant))
    return tuple(turns)


def _present(**values: Any) -> dict[str, Any]:
    """Those that are there: the schema has no null."""
    return {name: value for name, value in values.items() if value is not None}

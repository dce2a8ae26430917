"""Conversations on images in Parquet files: The Cauldron's sets, TRL's chats, DocVQA's examples.

Layouts: see `convkit.converters.parquet`. Files are named by split as on the hub (`train-00000-of-00002.parquet`,
`test-…`, `validation-…`); any other name means train. From train, the splits that the source lacks are carved.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from convkit.converters import parquet, pictures
from convkit.converters.base import Converter, Exclude, Item, Record, Reject
from convkit.converters.parquet import Example, RowGroup
from convkit.converters.pictures import PictureOptions
from convkit.errors import ConvkitError, ItemError, SourceError
from convkit.schema import Conversation, Turn

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""By the first word of a file's name."""
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")


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

    @property
    def units(self) -> int:
        """Its rows."""
        return self.group.rows


class Cauldron(Converter[Rows]):
    """Each row is a conversation; rows with equal first images are one group, which no carved split separates."""

    name = "cauldron"
    unit = "row"
    version = 1
    Options = CauldronOptions
    default_source = "hub:HuggingFaceM4/the_cauldron/CONFIG/*.parquet"
    suffixes = frozenset([parquet.SUFFIX, *IMAGE_SUFFIXES])
    options: CauldronOptions

    def __init__(self, root: Path, options: Any) -> None:
        super().__init__(root.parent if root.is_file() else root, options)
        self._file = root.name if root.is_file() else None

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
    def dataset(self) -> str:
        """As `--name` says, or `--config`."""
        return self.options.name or self.options.config or self.name

    def count(self) -> int:
        """The number of row groups; every file is opened for it, so that a damaged one is told of at once."""
        return sum(1 for _ in self.items())

    def items(self) -> Iterator[Rows | Reject | Exclude]:
        """Row groups in the order of file names; those beyond the limit are left out, or cut."""
        files = [self._file] if self._file else parquet.files(self.root)
        if not files:
            raise SourceError(f"{self.root} holds no Parquet files (*{parquet.SUFFIX}). Pass a folder that does.")
        present = {_word(file) for file in files}
        lacking = tuple(split for split in ("val", "test") if split not in present)
        left = dict.fromkeys(map(split_of, files), self.options.limit or sys.maxsize)
        for file in files:
            split = split_of(file)
            for group in parquet.row_groups(self.root, file):
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
                yield Reject(address, "invalid-row", _first(error))
            except OSError as error:
                yield Reject(address, "unreadable-image", f"an image cannot be read: {error.strerror or error}")

    def _record(self, item: Rows, number: int, row: parquet.Row) -> Record:
        example, values = parquet.example(item.group, row)
        images = [parquet.image(self.root, k, value) for k, value in enumerate(values)]
        group = _group(images, example)
        split = self._split(item, group)
        stem = item.group.file.removesuffix(parquet.SUFFIX)
        stored = [self._picture(image, f"{split}/{stem}-{number:07d}-{k}") for k, image in enumerate(images)]
        conversation = Conversation(
            id=f"{split}-{stem}-{number}",
            source=self.dataset,
            conversations=_turns(example, [picture.path for picture in stored]),
            group=group,
            **_present(system=example.system, metadata=example.metadata or None),
        )
        media = {picture.path: picture.content for picture in stored}
        return Record(split, (conversation,), media, notes=tuple(note for picture in stored for note in picture.notes))

    def _picture(self, image: parquet.Image, stem: str) -> pictures.Picture:
        if isinstance(image, bytes):
            return pictures.from_bytes(image, stem, self.options)
        return pictures.from_file(image, stem, self.options)

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


def split_of(file: str) -> str:
    """The split that a file's name tells of; `test_seen-00000-of-00001` is a split of that name."""
    shard = _SHARD.match(Path(file).name)
    split = _word(file)
    if split and shard:
        return SPLITS.get(shard[1], shard[1])
    return split or "train"


def _word(file: str) -> str | None:
    """The kind of split, by the first word of a file's name; None if it tells of none."""
    return SPLITS.get(re.split(r"[-_.]", Path(file).name)[0])


def _group(images: list[parquet.Image], example: Example) -> str:
    """By the row's first image, else by its text.

    Raises:
        OSError: the image cannot be read.
    """
    if not images:
        digest = hashlib.sha256(repr([(turn.user, turn.assistant) for turn in example.turns]).encode())
        return f"text-{digest.hexdigest()[:16]}"
    first = images[0]
    if isinstance(first, bytes):
        digest = hashlib.sha256(first)
    else:
        with first.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    return f"image-{digest.hexdigest()[:16]}"


def _turns(example: Example, paths: list[str]) -> tuple[Turn, ...]:
    turns = []
    shown = 0
    for turn in example.turns:
        images = tuple(paths[shown : shown + turn.images])
        shown += turn.images
        turns.append(Turn(images=images, user=turn.user, assistant=turn.assistant, **_present(answers=turn.answers)))
    return tuple(turns)


def _present(**values: Any) -> dict[str, Any]:
    """Those that are there: the schema has no null."""
    return {name: value for name, value in values.items() if value is not None}


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"the row would break the schema: {'/'.join(map(str, first['loc']))}: {first['msg']}"

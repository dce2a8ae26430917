"""The converter contract: list a source as small work items, and turn one item into rows and media.

A converter is a class with two methods, `items` and `convert`, and a line in the table of
`convkit.converters` (or an entry point in the group `convkit.converters`). Everything else (processes, order,
resuming, quarantine, accounting, progress) belongs to `convkit.convert` and `convkit.utils.pool`.

Example:
    class Captions(Converter[Caption]):
        name, unit, version = "captions", "caption", 1

        def items(self) -> Iterator[Caption | Reject | Exclude]:
            for number, line in enumerate((self.root / "captions.txt").open(), 1):
                yield Caption(address=f"captions.txt:{number}", text=line.strip())

        def convert(self, item: Caption) -> Record: ...
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from convkit.schema import Row
from convkit.utils.progress import Progress


class Options(BaseModel):
    """A converter's own options: each field becomes an option of its command, its description the help text.

    Only what has a bearing on the bytes belongs here; all of it is written into the manifest, so paths are
    marked with `Field(exclude=True)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_manifest(self) -> dict[str, Any]:
        """What the manifest says of them, and an unfinished conversion is held to.

        A file that an option names and that no item tells of belongs here by its digest.

        Raises:
            SourceError: such a file cannot be read.
        """
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Item:
    """One unit of work: small, picklable, and with a `repr` that names everything the result depends on.

    The digest of all items' `repr` in order is the source's fingerprint, so an item of a file holds its size,
    and paths in it are relative to the converter's `root`.
    """

    address: str
    """Where it stands in the source: a relative path, an archive member or file:line."""

    @property
    def units(self) -> int:
        """How many of the converter's units (questions, say) it holds."""
        return 1


@dataclass(frozen=True)
class Reject:
    """Something in the source that cannot become an item; it is quarantined with its reason."""

    address: str
    rule: str
    reason: str
    units: int = 1


@dataclass(frozen=True)
class Exclude:
    """Units left out because an option asked for it; counted by reason."""

    reason: str
    units: int = 1


@dataclass(frozen=True)
class Record:
    """What an item, or a part of it, became."""

    split: str
    rows: tuple[Row, ...]
    media: Mapping[str, bytes | Path] = field(default_factory=dict)
    """File content by image path, as the rows spell it; or a file of the source to hard-link, if it can be.

    Two records may name the same path only for the same content: which of two contents would stay is not defined.
    """
    units: int = 1
    """How many of the item's units it holds; those of all its parts together are the item's."""
    notes: tuple[str, ...] = ()
    """What was done to the item beyond the ordinary, counted in the manifest."""


I = TypeVar("I", bound=Item)  # noqa: E741


class Converter(ABC, Generic[I]):
    """A source format. Instances are picklable and hold no open files.

    Args:
        root: the source: a folder, or the folder that an archive was unpacked into.
        options: an instance of the class's `Options`.
    """

    name: ClassVar[str]
    """The command's name, and the data set's unless `dataset` says otherwise."""
    unit: ClassVar[str]
    """What is counted, in the singular: clip, question."""
    version: ClassVar[int]
    """Raised whenever the same source and options give other bytes."""
    Options: ClassVar[type[Options]] = Options
    default_source: ClassVar[str | None] = None
    """Where the data comes from without `--source`: see `convkit.sources`. None: `--source` is required."""
    suffixes: ClassVar[frozenset[str]] = frozenset()
    """Lower-case suffixes of the files that an archive is unpacked for."""
    expected_missing: ClassVar[float] = 0.0
    """The share of its units that an ordinary copy of the source may lack; so much of them ends no run."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that `convert` imports where it needs them; workers start sooner with these loaded."""

    @classmethod
    def default_source_for(cls, options: Any) -> str | None:
        """`default_source`, where it depends on an option."""
        return cls.default_source

    def __init__(self, root: Path, options: Any) -> None:
        self.root = root
        self.options = options

    @property
    def dataset_name(self) -> str:
        """The data set's name: `source` of its rows and first part of its file names."""
        return self.name

    def count(self) -> int | None:
        """How many units all entries of `items` hold, if that is cheap to know; for the progress bar alone."""
        return None

    @abstractmethod
    def items(self) -> Iterator[I | Reject | Exclude]:
        """Everything in the source, in a fixed order that does not depend on the file system.

        Raises:
            SourceError: the source is not in a layout that the converter knows; the message names the layouts.
        """

    def iter_with_progress(self, progress: Progress) -> Iterator[I | Reject | Exclude]:
        """`items`, for a converter that reads much of the source before the first one and tells how far it is."""
        return self.items()

    @abstractmethod
    def convert(self, item: I) -> Record | Iterable[Record | Reject]:
        """The rows and media of one item: a pure function of the item and the source, run in any process.

        An item that is a batch yields its parts one by one, each a record or a reject with its own address.

        Raises:
            ItemError: the item, or what is left of it, cannot become rows.
        """


def first_problem(error: ValidationError) -> str:
    """What a model says first against its input: where, and what."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, ("/".join(map(str, first["loc"])), first["msg"])))


def broken_schema(error: ValidationError) -> str:
    """Why something cannot become a row."""
    return f"the row would break the schema: {first_problem(error)}"

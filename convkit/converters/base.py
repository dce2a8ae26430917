"""Define the converter contract: list a source as work items, and convert one item to rows and images.

A converter is a class with two methods, `items` and `convert`. It is registered in the table of
`convkit.converters`, or as an entry point in the group `convkit.converters`. `convkit.convert` and
`convkit.utils.pool` do everything else: processes, order, resuming, quarantine, accounting and progress.

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
    """Base class of a converter's options.

    Each field becomes a command-line option, and its description the help text. Include only options that change
    the output. All of them are written to the manifest, so mark paths with `Field(exclude=True)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_manifest(self) -> dict[str, Any]:
        """Return the options as recorded in the manifest and compared on resume.

        If an option names a file that no item describes, add the digest of that file here.

        Raises:
            SourceError: such a file cannot be read.
        """
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Item:
    """Describe one unit of work: small, picklable, with a `repr` that names everything the result depends on.

    The source's fingerprint is the digest of the `repr` of all items in order. So an item that reads a file holds the
    file's size, and its paths are relative to the converter's `root`. Renaming an item class or field changes the
    fingerprint.
    """

    address: str
    """The item's location in the source: a relative path, an archive member or file:line."""

    @property
    def units(self) -> int:
        """Return the number of the converter's units (for example questions) in this item."""
        return 1


@dataclass(frozen=True)
class Reject:
    """Report a part of the source that cannot become an item; it is quarantined with its reason."""

    address: str
    rule: str
    reason: str
    units: int = 1


@dataclass(frozen=True)
class Exclude:
    """Count units that an option leaves out, by reason."""

    reason: str
    units: int = 1


@dataclass(frozen=True)
class Record:
    """Hold the rows and images that an item, or a part of it, was converted to."""

    split: str
    rows: tuple[Row, ...]
    media: Mapping[str, bytes | Path] = field(default_factory=dict)
    """File content by image path as in the rows, or a source file to hard-link where possible.

    Two records may share a path only if the content is the same. Otherwise it is undefined which content is kept.
    """
    units: int = 1
    """The number of the item's units in this record. All parts of an item add up to its units."""
    notes: tuple[str, ...] = ()
    """Notes on changes made to the images, counted in the manifest."""


I = TypeVar("I", bound=Item)  # noqa: E741


class Converter(ABC, Generic[I]):
    """Base class of converters for one source format. Instances are picklable and hold no open files.

    Args:
        root: the source folder, or the folder that an archive was unpacked to.
        options: an instance of the class's `Options`.
    """

    name: ClassVar[str]
    """The command's name, and by default the dataset's name (see `dataset_name`)."""
    unit: ClassVar[str]
    """The unit that is counted, in the singular: clip, question."""
    version: ClassVar[int]
    """The converter's version. Raise it whenever the same source and options produce different output."""
    Options: ClassVar[type[Options]] = Options
    default_source: ClassVar[str | None] = None
    """The source to use without `--source` (see `convkit.sources`). None: `--source` is required."""
    suffixes: ClassVar[frozenset[str]] = frozenset()
    """Lower-case suffixes of the files to unpack from an archive."""
    expected_missing: ClassVar[float] = 0.0
    """The share of units that is usually missing from a copy of the source. Up to this share does not stop the run."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that `convert` imports lazily. Workers import them at start."""

    @classmethod
    def default_source_for(cls, options: Any) -> str | None:
        """Return `default_source`; override it where the source depends on an option."""
        return cls.default_source

    def __init__(self, root: Path, options: Any) -> None:
        self.root = root
        self.options = options

    @property
    def dataset_name(self) -> str:
        """The dataset's name: the `source` of its rows and the prefix of its file names."""
        return self.name

    def count(self) -> int | None:
        """Return the number of units in all entries of `items`, for the progress bar, or None if counting is slow."""
        return None

    @abstractmethod
    def items(self) -> Iterator[I | Reject | Exclude]:
        """Yield all entries of the source, in a fixed order that does not depend on the file system.

        Raises:
            SourceError: the source is not in a known layout; the message lists the known layouts.
        """

    def iter_with_progress(self, progress: Progress) -> Iterator[I | Reject | Exclude]:
        """Yield `items` and report progress; override it if much of the source is read before the first item."""
        return self.items()

    @abstractmethod
    def convert(self, item: I) -> Record | Iterable[Record | Reject]:
        """Convert one item to rows and images: a pure function of the item and the source, run in any process.

        If the item is a batch, yield its parts one by one. Each part is a record, or a reject with its own address.

        Raises:
            ItemError: the item, or the rest of it, cannot become rows.
        """


def first_problem(error: ValidationError) -> str:
    """Return the first validation error as text: its location and message."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, ("/".join(map(str, first["loc"])), first["msg"])))


def schema_error(error: ValidationError) -> str:
    """Return the reason why data cannot become a row."""
    return f"the row would break the schema: {first_problem(error)}"

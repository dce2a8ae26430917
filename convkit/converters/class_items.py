"""Make work items of the files in class folders: select classes, split off val, and limit their number."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field

from convkit.converters.base import Exclude, Item, Options, Reject
from convkit.converters.class_folders import SPLITS, FolderEntry, Member, UnusableFile
from convkit.errors import SourceError


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


DatasetName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Dataset name in rows and file names.")
]


class ClassOptions(Options):
    """Options shared by all converters of class folders."""

    classes: Annotated[tuple[str, ...], BeforeValidator(_split_commas)] = Field(
        (), description="Only these classes, separated by commas. Default: all."
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of files per class and split.")
    val_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of train's files to split off as val if the source has no val split; groups such as "
        "equal images stay together; 0: none.",
    )
    prompt: str = Field(
        "Classify the image into one of the following classes: {classes}.",
        pattern=r"\{classes\}",
        description="User prompt; {classes} is replaced by the sorted class names.",
    )
    seed: int = Field(0, description="Random seed for selecting the groups of val.")


@dataclass(frozen=True)
class Classed(Item):
    """Hold one media file and the id and prompt of its row."""

    member: Member
    row_id: str
    prompt: str


SelectedEntry = Member | Reject | Exclude
E = TypeVar("E", FolderEntry, SelectedEntry)


def count_files(entries: Iterable[FolderEntry]) -> int:
    """Return the number of files, usable or not."""
    return sum(_units(entry) for entry in entries)


def _units(entry: FolderEntry) -> int:
    if isinstance(entry, UnusableFile):
        return entry.reject.units
    return 1 if isinstance(entry, Member) else entry.units


def select_classes(entries: Iterable[FolderEntry], wanted: tuple[str, ...]) -> Iterator[SelectedEntry]:
    """Leave out files of classes that are not selected; an empty selection means all classes.

    Raises:
        SourceError: a selected class does not exist.
    """
    known = set()
    for entry in entries:
        if isinstance(entry, Member | UnusableFile):
            known.add(entry.label)
        if isinstance(entry, Member | UnusableFile) and wanted and entry.label not in wanted:
            yield Exclude("class not in --classes", _units(entry))
        else:
            yield entry.reject if isinstance(entry, UnusableFile) else entry
    if unknown := sorted(set(wanted) - known):
        raise SourceError(
            f"--classes: the source has no class {', '.join(unknown)}. Choose from: {', '.join(sorted(known))}."
        )


def split_off_val(
    entries: list[SelectedEntry], fraction: float, seed: int, group: Callable[[Member], str]
) -> list[SelectedEntry]:
    """Move whole groups of each class from train to val, if the source has no val split.

    A group that spans several classes moves as a whole.

    Args:
        fraction: share of each class's groups, rounded, but at least one of two or more; 0 moves none.
        seed: selects the groups, independent of the order of the files.
        group: returns the group of a file; called for files of train only, and only if something is moved.
    """
    found = [e for e in entries if isinstance(e, Member)]
    if fraction == 0 or any(m.split == "val" for m in found):
        return entries
    group_of = {m.path: group(m) for m in found if m.split == "train"}
    chosen: set[str] = set()
    train = sorted({(m.label, group_of[m.path]) for m in found if m.split == "train"})
    for _, pairs in groupby(train, key=lambda pair: pair[0]):
        drawn = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair[0]}/{pair[1]}".encode()).digest())
        count = max(1, round(fraction * len(drawn))) if len(drawn) > 1 else 0
        chosen.update(name for _, name in drawn[:count])

    def moved(entry: SelectedEntry) -> SelectedEntry:
        if isinstance(entry, Member) and group_of.get(entry.path) in chosen:
            return replace(entry, split="val")
        return entry

    return sort_by_split([moved(entry) for entry in entries])


def sort_by_split(entries: list[E]) -> list[E]:
    """Sort entries by split: those without a split, train, val, test. Order within a split is kept."""
    return sorted(entries, key=lambda e: SPLITS.index(e.split) if isinstance(e, Member) else -1)


def limit_each_class(entries: Iterable[SelectedEntry], limit: int | None) -> Iterator[SelectedEntry]:
    """Leave out all but the first `limit` files of each class and split."""
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        if limit is not None and isinstance(entry, Member):
            key = (entry.split, entry.label)
            seen[key] = seen.get(key, 0) + 1
            yield entry if seen[key] <= limit else Exclude("beyond --limit")
        else:
            yield entry


def make_items(
    entries: Iterable[FolderEntry], options: ClassOptions, group: Callable[[Member], str]
) -> Iterator[Classed | Reject | Exclude]:
    """Yield the work items of a source according to its options: by split, class and name.

    Args:
        group: returns the group of a file, which a split keeps together.
    """
    chosen = split_off_val(list(select_classes(entries, options.classes)), options.val_fraction, options.seed, group)
    labels = sorted({entry.label for entry in chosen if isinstance(entry, Member)})
    prompt = options.prompt.replace("{classes}", ", ".join(labels))
    number = 0
    for entry in limit_each_class(chosen, options.limit):
        if isinstance(entry, Member):
            yield Classed(entry.path, entry, f"{entry.split}-{number:010d}", prompt)
            number += 1
        else:
            yield entry

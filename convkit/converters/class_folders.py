"""Folders of media by class, with or without folders by split above them: what video and image sources share.

Two layouts are known, at any depth below the source:
    {train,val,test}/<Class>/<file>      splits by folder
    <Class>/<file>                       splits by lists, or all of it train
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field

from convkit.converters.base import Exclude, Item, Options, Reject
from convkit.errors import SourceError
from convkit.utils.files import display_path

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
MAX_DEPTH = 6


def _commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


DatasetName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Name of the data set in rows and file names.")
]


class ClassOptions(Options):
    """Options of every converter of media by class."""

    classes: Annotated[tuple[str, ...], BeforeValidator(_commas)] = Field(
        (), description="Only these classes, separated by commas. Default: all."
    )
    limit: int | None = Field(None, ge=1, description="At most this many of each class in each split.")
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of train's groups that become val where the source has no val; 0: none."
    )
    prompt: str = Field(
        "Classify the image into one of the following classes: {classes}.",
        pattern=r"\{classes\}",
        description="The user's text; {classes} stands for the sorted class names.",
    )
    seed: int = Field(0, description="Decides which groups become val.")


@dataclass(frozen=True)
class Member:
    """One media file: where it is and what its folders say of it."""

    path: str
    """Relative to the source, with slashes."""
    split: str
    label: str
    stem: str
    """Its name without suffix; with it, where an earlier file of another suffix has that name."""
    size: int
    """Bytes."""

    @property
    def name(self) -> str:
        """Its path in rows, without suffix."""
        return f"{self.split}/{self.label}/{self.stem}"


@dataclass(frozen=True)
class Classed(Item):
    """One media file and the row that it becomes."""

    member: Member
    row_id: str
    prompt: str


@dataclass(frozen=True)
class Unusable:
    """What stands in a class folder and cannot become an item; a reject, unless its class is not wanted."""

    label: str
    reject: Reject


class Place(NamedTuple):
    """Where the media of a source are."""

    base: Path
    """The folder that holds the split or class folders."""
    by_split: bool


def members(
    root: Path, suffixes: frozenset[str], kind: str, place: Place | None = None
) -> Iterator[Member | Unusable | Reject | Exclude]:
    """Every file of a source, ordered by split, class and name; what cannot be used is named.

    Args:
        suffixes: lower-case suffixes of the files looked for.
        kind: what they are called in messages, such as "video".
        place: what `find` said, where it was asked.

    Raises:
        SourceError: neither layout is there, or more than one place could be meant.
    """
    base, by_split = place or find(root, suffixes, kind)
    splits = _split_folders(base) if by_split else {"train": base}
    classes = [(split, folder) for split in SPLITS if split in splits for folder in _subfolders(splits[split])]
    yield from _misplaced(root, {folder for _, folder in classes}, suffixes, kind)
    for split, folder in classes:
        yield from _class_members(root, folder, split, suffixes, kind)


def _split_folders(base: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _subfolders(base):
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split in found:
            raise SourceError(
                f"{found[split]} and {folder.name} are both folders of the split {split}. Join or rename one."
            )
        if split:
            found[split] = folder
    return found


def _class_members(
    root: Path, folder: Path, split: str, suffixes: frozenset[str], kind: str
) -> Iterator[Member | Unusable | Exclude]:
    def unusable(address: str, rule: str, reason: str, units: int = 1) -> Unusable:
        return Unusable(folder.name, Reject(address, rule, reason, units))

    found = False
    stems: set[str] = set()
    place = folder.relative_to(root).as_posix()
    for entry in _entries(folder):
        path = f"{place}/{entry.name}"
        stem, suffix = os.path.splitext(entry.name)
        if entry.is_dir():
            continue
        if suffix.lower() not in suffixes:
            yield Exclude(f"no {kind} by its suffix: {display_path(suffix or entry.name)}")
        elif not _is_utf8(path):
            found = True
            yield unusable(
                display_path(path), "bad-name", "the file name is not UTF-8 and cannot stand in a row; rename it"
            )
        elif not entry.is_file():
            found = True
            yield unusable(path, "unreadable", "it is no file, or a link that leads nowhere")
        else:
            found = True
            if stem in stems:
                stem = entry.name  # which no other has: a file with one more suffix comes later
            stems.add(stem)
            yield Member(path, split, folder.name, stem, entry.stat().st_size)
    if not found:
        yield unusable(f"{display_path(place)}/", "empty-class", f"the class folder holds no {kind}", units=0)


def _misplaced(root: Path, classes: set[Path], suffixes: frozenset[str], kind: str) -> Iterator[Reject]:
    """Files of the wanted kind that stand in no class folder."""
    for folder in _walk(root, 2 * MAX_DEPTH):
        for entry in _entries(folder) if folder not in classes else ():
            if os.path.splitext(entry.name)[1].lower() in suffixes and not entry.is_dir():
                address = display_path(Path(entry.path).relative_to(root).as_posix())
                yield Reject(address, "misplaced", f"the {kind} stands in no class folder of a split; move it into one")


def find(root: Path, suffixes: frozenset[str], kind: str) -> Place:
    """Where a source has its media.

    Raises:
        SourceError: neither layout is there, or more than one place could be meant.
    """
    if root.is_file():
        raise SourceError(
            f"{root} is a single {kind}, and its class is not known: that is the name of its folder. "
            "Point --source at the folder above the class folders."
        )
    by_split: list[Path] = []
    by_class: list[Path] = []
    for folder in _walk(root, MAX_DEPTH):
        children = _subfolders(folder)
        if any(c.name.lower() in SPLIT_FOLDERS and _holds_classes(c, suffixes) for c in children):
            by_split.append(folder)
        elif any(_holds(c, suffixes) for c in children):
            by_class.append(folder)
    # Below a folder of splits, each split looks like a folder of classes.
    candidates = by_split or by_class
    if len(candidates) == 1:
        return Place(candidates[0], bool(by_split))
    layouts = f"{{train,val,test}}/<Class>/<{kind}> or <Class>/<{kind}>, at any depth up to {MAX_DEPTH}"
    if not candidates:
        raise SourceError(
            f"{root} holds no {kind}s in class folders. Looked for {layouts}, with files ending in "
            f"{', '.join(sorted(suffixes))}. Point --source at the folder above the class or split folders."
        )
    named = ", ".join(str(c) for c in candidates[:4])
    raise SourceError(f"{root} holds {len(candidates)} sets of class folders: {named}. Point --source at one of them.")


def _walk(folder: Path, depth: int, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """A folder and all below it; a link back to a folder above is not followed round and round."""
    real = os.path.realpath(folder)
    if real in above:
        return
    yield folder
    if depth:
        for child in _subfolders(folder):
            yield from _walk(child, depth - 1, (*above, real))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; hidden files are the system's, not the user's."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _subfolders(folder: Path) -> list[Path]:
    return [Path(e.path) for e in _entries(folder) if e.is_dir()]


def _holds_classes(folder: Path, suffixes: frozenset[str]) -> bool:
    return any(_holds(c, suffixes) for c in _subfolders(folder))


def _holds(folder: Path, suffixes: frozenset[str]) -> bool:
    return any(os.path.splitext(e.name)[1].lower() in suffixes and not e.is_dir() for e in _entries(folder))


def _is_utf8(text: str) -> bool:
    return display_path(text) == text


Entry = Member | Unusable | Reject | Exclude
Chosen = Member | Reject | Exclude
E = TypeVar("E", Entry, Chosen)


def count(entries: Iterable[Entry]) -> int:
    """How many files there are, usable or not."""
    return sum(_units(entry) for entry in entries)


def _units(entry: Entry) -> int:
    if isinstance(entry, Unusable):
        return entry.reject.units
    return 1 if isinstance(entry, Member) else entry.units


def choose_classes(entries: Iterable[Entry], wanted: tuple[str, ...]) -> Iterator[Chosen]:
    """Leave out the members of other classes, usable or not; no classes named means all.

    Raises:
        SourceError: a class that is wanted does not exist.
    """
    known = set()
    for entry in entries:
        if isinstance(entry, Member | Unusable):
            known.add(entry.label)
        if isinstance(entry, Member | Unusable) and wanted and entry.label not in wanted:
            yield Exclude("class not in --classes", _units(entry))
        else:
            yield entry.reject if isinstance(entry, Unusable) else entry
    if unknown := sorted(set(wanted) - known):
        raise SourceError(f"no class {', '.join(unknown)} in the source. Its classes: {', '.join(sorted(known))}.")


def carve_val(entries: list[Chosen], fraction: float, seed: int, group: Callable[[Member], str]) -> list[Chosen]:
    """Move whole groups of each class from train to val, where the source has no val split of its own.

    A group that spans classes moves as a whole.

    Args:
        fraction: share of a class's groups, rounded, at least one of two or more; 0 moves none.
        seed: decides which groups, whatever the order of the files.
        group: asked of train's members alone, and only where there is something to move.
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

    def moved(entry: Chosen) -> Chosen:
        if isinstance(entry, Member) and group_of.get(entry.path) in chosen:
            return replace(entry, split="val")
        return entry

    return in_split_order([moved(entry) for entry in entries])


def in_split_order(entries: list[E]) -> list[E]:
    """Train, val, test; what has no split comes first. The order within a split stays."""
    return sorted(entries, key=lambda e: SPLITS.index(e.split) if isinstance(e, Member) else -1)


def limit_each_class(entries: Iterable[Chosen], limit: int | None) -> Iterator[Chosen]:
    """Leave out all but the first `limit` members of each class and split."""
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        if limit is not None and isinstance(entry, Member):
            key = (entry.split, entry.label)
            seen[key] = seen.get(key, 0) + 1
            yield entry if seen[key] <= limit else Exclude("beyond --limit")
        else:
            yield entry


def arrange(
    entries: Iterable[Entry], options: ClassOptions, group: Callable[[Member], str]
) -> Iterator[Classed | Reject | Exclude]:
    """The work items of a source, as its options want them: by split, class and name.

    Args:
        group: what may not be separated by a split, of a member.
    """
    chosen = carve_val(list(choose_classes(entries, options.classes)), options.val_fraction, options.seed, group)
    labels = sorted({entry.label for entry in chosen if isinstance(entry, Member)})
    prompt = options.prompt.replace("{classes}", ", ".join(labels))
    number = 0
    for entry in limit_each_class(chosen, options.limit):
        if isinstance(entry, Member):
            yield Classed(entry.path, entry, f"{entry.split}-{number:010d}", prompt)
            number += 1
        else:
            yield entry

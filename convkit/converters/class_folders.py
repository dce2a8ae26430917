"""List media files in class folders, with or without split folders above them.

Two layouts are supported, at any depth below the source:
    {train,val,test}/<Class>/<file>      splits by folder
    <Class>/<file>                       splits by split lists, or all files in train
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
        description="Fraction of train's groups to split off as val if the source has no val split; 0: none.",
    )
    prompt: str = Field(
        "Classify the image into one of the following classes: {classes}.",
        pattern=r"\{classes\}",
        description="User prompt; {classes} is replaced by the sorted class names.",
    )
    seed: int = Field(0, description="Random seed for selecting the groups of val.")


@dataclass(frozen=True)
class Member:
    """Describe one media file: its path, split and class."""

    path: str
    """The path relative to the source, with slashes."""
    split: str
    label: str
    stem: str
    """The file name without suffix, or with it if an earlier file differs by suffix only."""
    size: int
    """The file size in bytes."""

    @property
    def name(self) -> str:
        """The path in rows, without its suffix."""
        return f"{self.split}/{self.label}/{self.stem}"


@dataclass(frozen=True)
class Classed(Item):
    """Hold one media file and the id and prompt of its row."""

    member: Member
    row_id: str
    prompt: str


@dataclass(frozen=True)
class UnusableFile:
    """Hold a file in a class folder that cannot become an item; a reject if its class is selected."""

    label: str
    reject: Reject


class MediaRoot(NamedTuple):
    """Locate the class folders of a source."""

    base: Path
    """The folder that contains the split folders or class folders."""
    by_split: bool


def list_members(
    root: Path, suffixes: frozenset[str], kind: str, media_root: MediaRoot | None = None
) -> Iterator[Member | UnusableFile | Reject | Exclude]:
    """Yield every file of a source, ordered by split, class and name, with a reject for each unusable one.

    Args:
        suffixes: lower-case suffixes of the media files.
        kind: the word for the files in messages, such as "video".
        media_root: the result of `find_media_root`, if already known.

    Raises:
        SourceError: no supported layout was found, or more than one match.
    """
    base, by_split = media_root or find_media_root(root, suffixes, kind)
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
) -> Iterator[Member | UnusableFile | Exclude]:
    def unusable(address: str, rule: str, reason: str, units: int = 1) -> UnusableFile:
        return UnusableFile(folder.name, Reject(address, rule, reason, units))

    found = False
    stems: set[str] = set()
    prefix = folder.relative_to(root).as_posix()
    for entry in _visible_entries(folder):
        path = f"{prefix}/{entry.name}"
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
                stem = entry.name  # unique, since files with another suffix come later
            stems.add(stem)
            yield Member(path, split, folder.name, stem, entry.stat().st_size)
    if not found:
        yield unusable(f"{display_path(prefix)}/", "empty-class", f"the class folder holds no {kind}", units=0)


def _misplaced(root: Path, classes: set[Path], suffixes: frozenset[str], kind: str) -> Iterator[Reject]:
    """Yield files of the wanted kind that are not in a class folder."""
    for folder in _walk(root, 2 * MAX_DEPTH):
        for entry in _visible_entries(folder) if folder not in classes else ():
            if os.path.splitext(entry.name)[1].lower() in suffixes and not entry.is_dir():
                address = display_path(Path(entry.path).relative_to(root).as_posix())
                yield Reject(address, "misplaced", f"the {kind} stands in no class folder of a split; move it into one")


def find_media_root(root: Path, suffixes: frozenset[str], kind: str) -> MediaRoot:
    """Find the folder that contains the split folders or class folders.

    Raises:
        SourceError: no supported layout was found, or more than one match.
    """
    if root.is_file():
        raise SourceError(
            f"{root} is a single {kind} without a class: the class is the name of its folder. "
            "Point --source at the folder above the class folders."
        )
    by_split: list[Path] = []
    by_class: list[Path] = []
    for folder in _walk(root, MAX_DEPTH):
        children = _subfolders(folder)
        if any(c.name.lower() in SPLIT_FOLDERS and _has_class_folders(c, suffixes) for c in children):
            by_split.append(folder)
        elif any(_has_media(c, suffixes) for c in children):
            by_class.append(folder)
    # Below a folder of splits, each split looks like a folder of classes.
    candidates = by_split or by_class
    if len(candidates) == 1:
        return MediaRoot(candidates[0], bool(by_split))
    layouts = f"{{train,val,test}}/<Class>/<{kind}> or <Class>/<{kind}>, at any depth up to {MAX_DEPTH}"
    if not candidates:
        raise SourceError(
            f"{root} contains no {kind}s in class folders. Looked for {layouts}, with files ending in "
            f"{', '.join(sorted(suffixes))}. Point --source at the folder above the class or split folders."
        )
    named = ", ".join(str(c) for c in candidates[:4])
    raise SourceError(
        f"{root} contains {len(candidates)} sets of class folders: {named}. Point --source at one of them."
    )


def _walk(folder: Path, depth: int, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield a folder and all folders below it, without following links back to a parent folder."""
    real = os.path.realpath(folder)
    if real in above:
        return
    yield folder
    if depth:
        for child in _subfolders(folder):
            yield from _walk(child, depth - 1, (*above, real))


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the visible entries of a folder, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _subfolders(folder: Path) -> list[Path]:
    return [Path(e.path) for e in _visible_entries(folder) if e.is_dir()]


def _has_class_folders(folder: Path, suffixes: frozenset[str]) -> bool:
    return any(_has_media(c, suffixes) for c in _subfolders(folder))


def _has_media(folder: Path, suffixes: frozenset[str]) -> bool:
    return any(os.path.splitext(e.name)[1].lower() in suffixes and not e.is_dir() for e in _visible_entries(folder))


def _is_utf8(text: str) -> bool:
    return display_path(text) == text


FolderEntry = Member | UnusableFile | Reject | Exclude
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
        raise SourceError(f"no class {', '.join(unknown)} in the source. Its classes: {', '.join(sorted(known))}.")


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

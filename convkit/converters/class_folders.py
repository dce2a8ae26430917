"""List media files in class folders, with or without split folders above them.

Two layouts are supported, at any depth below the source:
    {train,val,test}/<Class>/<file>      splits by folder
    <Class>/<file>                       splits by split lists, or all files in train
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from convkit.converters.base import Exclude, Reject
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
class UnusableFile:
    """Hold a file in a class folder that cannot become an item; a reject if its class is selected."""

    label: str
    reject: Reject


class MediaRoot(NamedTuple):
    """Locate the class folders of a source."""

    base: Path
    """The folder that contains the split folders or class folders."""
    by_split: bool


FolderEntry = Member | UnusableFile | Reject | Exclude


def list_members(
    root: Path, suffixes: frozenset[str], kind: str, media_root: MediaRoot | None = None
) -> Iterator[FolderEntry]:
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

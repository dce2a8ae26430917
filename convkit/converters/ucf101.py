"""Convert UCF-101, as the official release with its split lists or as the subset on the Hugging Face Hub.

Layouts: `{train,val,test}/<Class>/*.avi` (the subset), `<Class>/*.avi` with `ucfTrainTestlist/` (the release).
The class is the folder's name, since the files of HandstandPushups are spelled differently.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from convkit.converters import class_folders, class_items
from convkit.converters.base import Exclude, Reject
from convkit.converters.class_folders import FolderEntry, Member
from convkit.converters.video_folder import VIDEO_SUFFIXES, VideoFolder, VideoOptions
from convkit.errors import SourceError

LISTS = "ucfTrainTestlist"
_GROUP = re.compile(r"_(g\d+)_c\d+$")


class UCF101Options(VideoOptions):
    """Options of the `ucf101` converter."""

    splits: Path | None = Field(
        None, exclude=True, description=f"Folder {LISTS} of the official release. Default: searched beside the source."
    )
    fold: int = Field(1, ge=1, le=3, description="Number of the official split (fold).")

    def to_manifest(self) -> dict[str, Any]:
        """Add the digest of the split lists: other lists of the same name produce other rows."""
        if self.splits is None:
            return super().to_manifest()
        digest = hashlib.sha256()
        for _, path in _split_lists(self.splits, self.fold):
            with _list_errors(path):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {**super().to_manifest(), "splits": digest.hexdigest()}


class UCF101(VideoFolder):
    """Convert UCF-101: 13,320 clips of 101 actions; each action has 25 groups of clips of the same scene."""

    name = "ucf101"
    version = 2
    Options: ClassVar[type[VideoOptions]] = UCF101Options
    suffixes = VIDEO_SUFFIXES | {".txt"}  # the lists may be in the archive
    default_source = "hub:sayakpaul/ucf101-subset/UCF101_subset.tar.gz"
    options: UCF101Options

    def group(self, member: Member) -> str:
        """Return the action and the group number gNN of the clip's name."""
        found = _GROUP.search(member.stem)
        return f"{member.label}_{found[1]}" if found else super().group(member)

    def members(self) -> Iterator[FolderEntry]:
        """Yield clips with the split of their folder, or of the official lists if there are no split folders."""
        media_root = class_folders.find_media_root(self.root, VIDEO_SUFFIXES, "video")
        found = class_folders.list_members(self.root, VIDEO_SUFFIXES, "video", media_root)
        if self.options.splits is None and media_root.by_split:
            return found
        return _assign_splits(found, self._lists(media_root.base), self.options)

    def _lists(self, base: Path) -> Path:
        candidates = (folder / LISTS for folder in (base, base.parent, self.root, self.root.parent))
        lists = self.options.splits or next((p for p in candidates if p.is_dir()), None)
        if lists is None:
            raise SourceError(
                f"{self.root} has class folders but no train and test folders, so the official split lists are needed. "
                f"Download UCF101TrainTestSplits-RecognitionTask.zip from its page and pass --splits {LISTS}; "
                "for other videos use: convkit convert video-folder"
            )
        return lists


def _assign_splits(entries: Iterator[FolderEntry], lists: Path, options: UCF101Options) -> Iterator[FolderEntry]:
    """Assign each clip the split from the lists. Clips and list entries without a match are counted or rejected."""
    listed: dict[str, tuple[str, str]] = {}
    for split, path in _split_lists(lists, options.fold):
        for clip, place in _read_list(path, split).items():
            if clip in listed:
                raise SourceError(
                    f"{clip} is in both {listed[clip][1]} and {place[1]}: train and test overlap. Fix the lists."
                )
            listed[clip] = place
    placed: list[FolderEntry] = []
    for entry in entries:
        if not isinstance(entry, Member):
            placed.append(entry)
        elif found := listed.pop("/".join(entry.path.split("/")[-2:]), None):
            placed.append(replace(entry, split=found[0]))
        else:
            placed.append(Exclude(f"not in the lists of fold {options.fold}"))
    for clip, (_, address) in listed.items():
        if options.classes and clip.split("/")[0] not in options.classes:
            placed.append(Exclude("class not in --classes"))
        else:
            placed.append(Reject(address, "missing-clip", f"the list names {clip}, which is not in the source"))
    return iter(class_items.sort_by_split(placed))


def _split_lists(folder: Path, fold: int) -> Iterator[tuple[str, Path]]:
    """Yield the split lists of a fold, each with its split."""
    for split in ("train", "test"):
        yield split, folder / f"{split}list0{fold}.txt"


@contextmanager
def _list_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"cannot read the split list {path}: {error.strerror}. --splits takes the folder {LISTS} of the release."
        ) from error


def _read_list(path: Path, split: str) -> dict[str, tuple[str, str]]:
    """Read a split list: clip -> (split, file:line). Lines are `Class/clip.avi` with or without a label number."""
    try:
        with _list_errors(path):
            lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not a UTF-8 text file. --splits takes the folder {LISTS}.") from error
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        clip = line.split()[0]
        if clip.count("/") != 1 or clip in found:
            problem = "lists a clip twice" if clip in found else "is not of the form Class/clip.avi [label]"
            raise SourceError(
                f"{path}:{number} {problem}: {line.strip()[:80]!r}. Fix the list or use the official one."
            )
        found[clip] = (split, f"{path.name}:{number}")
    return found

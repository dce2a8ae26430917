"""Archives: told by their content, unpacked once, safely, and all or nothing."""

import json
import os
import shutil
import tarfile
from dataclasses import astuple
from pathlib import Path
from typing import Any

from convkit.errors import SourceError
from convkit.sources import RefusedMember
from convkit.sources.members import Extraction
from convkit.sources.tar import is_end_mark, unpack_tar
from convkit.sources.zip import unpack_zip
from convkit.utils.progress import Progress

REFUSED_FILE = "refused.json"

_MAGIC = {
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"Rar!\x1a\x07": "rar",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x28\xb5\x2f\xfd": "zst",
}
_COMMANDS = {"rar": "unrar x {}", "7z": "7z x {}", "zst": "tar --zstd -xf {}"}
"""For the formats that Python cannot read."""
_IMPOSTORS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull where it came from",
    b"<!doctype html": "a web page, not the file itself: download it again from where the page leads",
    b"<html": "a web page, not the file itself: download it again from where the page leads",
}


def unpack(archive: Path, target: Path, suffixes: frozenset[str], progress: Progress) -> tuple[RefusedMember, ...]:
    """Unpack an archive into the folder `target`; what an earlier run unpacked from it is reused.

    The folder appears only when it is complete. Beside it, `refused.json` keeps what was refused and what the folder
    was unpacked from.

    Args:
        suffixes: lower-case suffixes of the files that are wanted; empty: all.
        progress: called with bytes; of the archive for tar, of the unpacked files for zip.

    Returns:
        The members that were refused, the same whether unpacked now or before.

    Raises:
        SourceError: it is no archive, damaged, passes a limit, or holds nothing that is wanted.
        OSError: the disk is full, or the like.
    """
    kind = _kind(archive)
    identity = _identity(archive, suffixes)
    record = target.with_name(REFUSED_FILE)
    if target.exists():
        refused = _recorded(record, identity)
        if refused is not None:
            return refused
        record.unlink(missing_ok=True)  # First, or a kill during the next line would leave half a folder with a record.
        shutil.rmtree(target)
    partial = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        refused = _unpack_into(partial, archive, kind, suffixes, progress)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _write_record(record, identity, refused)
    os.sync()  # One for all files: a folder that outlives a power cut must not hold empty ones.
    partial.rename(target)
    return refused


def _unpack_into(
    folder: Path, archive: Path, kind: str, suffixes: frozenset[str], progress: Progress
) -> tuple[RefusedMember, ...]:
    extraction = Extraction(archive, folder, suffixes)
    if kind == "zip":
        unpack_zip(extraction, folder, progress)
    else:
        unpack_tar(kind, extraction, progress)
    if not extraction.files:
        wanted = f" with the suffix {' or '.join(sorted(suffixes))}" if suffixes else ""
        refused = extraction.refused
        because = f" ({len(refused)} members were refused, the first because {refused[0].reason})" if refused else ""
        raise SourceError(
            f"The archive {archive} holds no file{wanted} that can be unpacked{because}. "
            "Check that it is the right one, and pass that to --source."
        )
    return tuple(extraction.refused)


def _kind(archive: Path) -> str:
    """The format, by the first bytes: names are often wrong or missing.

    Raises:
        SourceError: it is no archive, or of a format that must be unpacked by hand.
    """
    with archive.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    by_name = archive.suffix.lower().removeprefix(".")
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None and by_name in _COMMANDS:
        kind = by_name
    if kind in _COMMANDS:
        raise SourceError(
            f"The archive {archive} is of a format that convkit cannot unpack. "
            f"Run: {_COMMANDS[kind].format(archive.name)}, and pass the folder to --source."
        )
    if kind is None and _is_tar(head):
        kind = "tar"
    if kind is None:
        raise SourceError(f"The source {archive} is no archive that convkit can read{_impostor(head)}.")
    return kind


def _is_tar(head: bytes) -> bool:
    """Whether a file begins with a tar header, of which only newer kinds have a mark but all have a checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return is_end_mark(head)
    return True


def _impostor(head: bytes) -> str:
    """What a file that is no archive seems to be, and a remedy."""
    if not head:
        return ": it is empty. Download it again"
    for begin, what in _IMPOSTORS.items():
        if head.lstrip().lower().startswith(begin):
            return f": it is {what}"
    return " (tar, tar.gz, tar.bz2, tar.xz or zip). Pass one of these, or the folder that holds the data, to --source"


def _identity(archive: Path, suffixes: frozenset[str]) -> dict[str, Any]:
    """What an unpacked folder depends on; a folder from another archive must not be taken for this one's."""
    status = archive.stat()
    return {
        "archive": archive.name,
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "suffixes": sorted(suffixes),
    }


def _recorded(record: Path, identity: dict[str, Any]) -> tuple[RefusedMember, ...] | None:
    """What was refused when the folder was unpacked; None if the record is missing or about something else."""
    try:
        content = json.loads(record.read_text("utf-8"))
        refused = tuple(RefusedMember(*entry) for entry in content.pop("refused"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return refused if content == identity else None


def _write_record(record: Path, identity: dict[str, Any], refused: tuple[RefusedMember, ...]) -> None:
    record.write_text(json.dumps({**identity, "refused": [astuple(r) for r in refused]}), "utf-8")

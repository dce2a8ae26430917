"""Unpack archives safely: detected by content, unpacked once, and completely or not at all."""

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
"""Commands for the formats that Python cannot read."""
_NON_ARCHIVES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull in its repository",
    b"<!doctype html": "a web page, not the file itself: download it again from the page's download link",
    b"<html": "a web page, not the file itself: download it again from the page's download link",
}


def unpack(archive: Path, target: Path, suffixes: frozenset[str], progress: Progress) -> tuple[RefusedMember, ...]:
    """Unpack an archive into the folder `target`, or reuse what an earlier run unpacked from it.

    The folder appears only when it is complete. The file `refused.json` beside it records the refused members and the
    archive's identity.

    Args:
        suffixes: lower-case suffixes of the files to unpack; empty: all.
        progress: called with the bytes read of a tar archive, or written from a zip archive.

    Returns:
        The refused members, the same whether unpacked now or earlier.

    Raises:
        SourceError: it is no archive, is damaged, exceeds a limit, or holds no wanted file.
        OSError: the disk is full, or a similar error.
    """
    kind = _detect_format(archive)
    identity = _archive_identity(archive, suffixes)
    record = target.with_name(REFUSED_FILE)
    if target.exists():
        refused = _read_record(record, identity)
        if refused is not None:
            return refused
        # First the record: a kill during the next line would otherwise leave half a folder with a record.
        record.unlink(missing_ok=True)
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
    os.sync()  # One sync for all files, so that a folder that survives a power failure has no empty files.
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
            f"The archive {archive} contains no file{wanted} that can be unpacked{because}. "
            "Check that it is the right one, and pass that to --source."
        )
    return tuple(extraction.refused)


def _detect_format(archive: Path) -> str:
    """Detect the archive format from the first bytes, since names are often wrong or missing.

    Raises:
        SourceError: it is no archive, or its format must be unpacked by hand.
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
        raise SourceError(f"The source {archive} is not an archive that convkit can read{_describe_non_archive(head)}.")
    return kind


def _is_tar(head: bytes) -> bool:
    """Return True for a tar header. Only newer formats have a magic number, but all have a checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return is_end_mark(head)
    return True


def _describe_non_archive(head: bytes) -> str:
    """Describe a file that is not an archive, with a remedy."""
    if not head:
        return ": it is empty. Download it again"
    for begin, what in _NON_ARCHIVES.items():
        if head.lstrip().lower().startswith(begin):
            return f": it is {what}"
    return " (tar, tar.gz, tar.bz2, tar.xz or zip). Pass one of these, or the folder with the data, to --source"


def _archive_identity(archive: Path, suffixes: frozenset[str]) -> dict[str, Any]:
    """Return what an unpacked folder depends on, so that it is not used for another archive."""
    status = archive.stat()
    return {
        "archive": archive.name,
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "suffixes": sorted(suffixes),
    }


def _read_record(record: Path, identity: dict[str, Any]) -> tuple[RefusedMember, ...] | None:
    """Return the members refused when the folder was unpacked; None if the record is missing or of another archive."""
    try:
        content = json.loads(record.read_text("utf-8"))
        refused = tuple(RefusedMember(*entry) for entry in content.pop("refused"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return refused if content == identity else None


def _write_record(record: Path, identity: dict[str, Any], refused: tuple[RefusedMember, ...]) -> None:
    record.write_text(json.dumps({**identity, "refused": [astuple(r) for r in refused]}), "utf-8")

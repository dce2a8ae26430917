"""Zip archives."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from convkit.errors import SourceError
from convkit.sources.members import BY_HAND, Extraction, chunks, reading
from convkit.utils.progress import Progress

_ENCRYPTED = 0x1
_UTF8 = 0x800


def unpack_zip(extraction: Extraction, folder: Path, progress: Progress) -> None:
    """Write the members of a zip archive below `folder`.

    Raises:
        SourceError: the archive is damaged, passes a limit, or does not fit on the disk.
    """
    with reading(extraction.archive, "in its list of members"):
        archive = zipfile.ZipFile(extraction.archive)
    with archive:
        members = _admitted(archive, extraction)
        total = sum(info.file_size for _, info in members)
        _expect_space(extraction.archive, folder, total)
        for path, info in members:
            where = f"at the member {path}"
            with reading(extraction.archive, where):
                stream = archive.open(info)
            with stream:
                extraction.write(path, chunks(stream, extraction.archive, where))
            progress(min(extraction.written, total), total)
    progress(total, total)


def _admitted(archive: zipfile.ZipFile, extraction: Extraction) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """The members to write, in the order of the archive's list."""
    members = []
    for info in archive.infolist():
        extraction.count()
        if info.is_dir():
            continue
        path = extraction.admit(_name(info), _unsafe_kind(info))
        if path is not None:
            members.append((path, info))
    return members


def _name(info: zipfile.ZipInfo) -> str:
    """The name as it stands in the archive, undecodable bytes as surrogates.

    `ZipInfo.filename` is cut at a NUL, and a name without the UTF-8 mark is read as code page 437 there, though
    most tools that leave out the mark write UTF-8 all the same.
    """
    if info.flag_bits & _UTF8:
        return info.orig_filename
    return info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def _unsafe_kind(info: zipfile.ZipInfo) -> str | None:
    """Why what a member is makes it unsafe; None for a regular file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "it is a symbolic link"
    if kind not in {0, stat.S_IFREG}:
        return "it is neither a file nor a folder"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    return None


def _expect_space(archive: Path, folder: Path, needed: int) -> None:
    """Say at once what would come to light after hours; only zip archives tell their members' sizes up front."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SourceError(
            f"Unpacking the archive {archive} takes {needed:,} bytes, but the disk of {folder.parent} has {free:,} "
            f"free. Make room, or {BY_HAND}."
        )

"""Read and unpack zip archives."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from convkit.errors import SourceError
from convkit.sources.members import MANUAL_REMEDY, Extraction, read_chunks, translate_errors
from convkit.utils.progress import Progress

_ENCRYPTED = 0x1
_UTF8 = 0x800


def unpack_zip(extraction: Extraction, folder: Path, progress: Progress) -> None:
    """Write the members of a zip archive below `folder`.

    Raises:
        SourceError: the archive is damaged, exceeds a limit, or does not fit on the disk.
    """
    with translate_errors(extraction.archive, "in its list of members"):
        archive = zipfile.ZipFile(extraction.archive)
    with archive:
        members = _accepted_members(archive, extraction)
        total = sum(info.file_size for _, info in members)
        _check_disk_space(extraction.archive, folder, total)
        for path, info in members:
            where = f"at the member {path}"
            with translate_errors(extraction.archive, where):
                stream = archive.open(info)
            with stream:
                extraction.write(path, read_chunks(stream, extraction.archive, where))
            progress(min(extraction.written, total), total)
    progress(total, total)


def _accepted_members(archive: zipfile.ZipFile, extraction: Extraction) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Return the accepted members, in the order of the archive's directory."""
    members = []
    for info in archive.infolist():
        extraction.count_member()
        if info.is_dir():
            continue
        path = extraction.accept(_member_name(info), _unsafe_kind(info))
        if path is not None:
            members.append((path, info))
    return members


def _member_name(info: zipfile.ZipInfo) -> str:
    """Return the name as stored in the archive, undecodable bytes as surrogates.

    `ZipInfo.filename` is cut at a NUL. It also decodes names without the UTF-8 flag as code page 437, although most
    tools that omit the flag write UTF-8.
    """
    if info.flag_bits & _UTF8:
        return info.orig_filename
    return info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def _unsafe_kind(info: zipfile.ZipInfo) -> str | None:
    """Return why a member's type is unsafe; None for a regular file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "it is a symbolic link"
    if kind not in {0, stat.S_IFREG}:
        return "it is neither a file nor a folder"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    return None


def _check_disk_space(archive: Path, folder: Path, needed: int) -> None:
    """Fail before unpacking if the disk is too small; only zip archives list member sizes up front."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SourceError(
            f"Unpacking the archive {archive} takes {needed:,} bytes, but the disk of {folder.parent} has {free:,} "
            f"free. Make room, or {MANUAL_REMEDY}."
        )

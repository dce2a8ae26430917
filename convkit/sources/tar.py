"""Tar archives, plain or compressed, read once from front to back in constant memory.

The standard library's reader is used for headers and for the content of members, with three things held against it:
it ends quietly at a damaged header, it keeps every member, and it reads an extended header of any size at once.
Its own decompression is not used, since it checks no checksums.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol, Self

from convkit.sources.members import Extraction, chunks, damaged, reading, shown
from convkit.utils.progress import Progress

HEADER_BYTES = 8 << 20
"""The most bytes of all headers of one member; a path takes four thousand, an attribute sixty-five thousand."""
PADDING_BYTES = 1 << 30
"""The most bytes of zeros after the end mark; tools pad to a few kilobytes or to a tape's block."""


def is_end_mark(block: bytes | bytearray) -> bool:
    """Whether a block is one that stands behind the last member, and alone in an empty archive."""
    return len(block) == tarfile.BLOCKSIZE and not any(block)


class _Unpacked(Protocol):
    """A plain file or one of the decompressors, which share no class that has a type."""

    def read(self, size: int, /) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, position: int, /) -> int: ...


class _Header(tarfile.TarInfo):
    """A header that is damaged, cut off or absent is an error: the members behind it would be missed by nobody."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if not buf:
            raise tarfile.ReadError("it ends without an end mark")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if is_end_mark(buf):
                raise
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:
            raise tarfile.ReadError("negative size")
        return header


class _Forward:
    """The unpacked stream: only forwards, and only as far as `limit`, so that no header is read into memory at will."""

    def __init__(self, stream: _Unpacked) -> None:
        self.limit = HEADER_BYTES
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self.tell() + size > self.limit:
            raise tarfile.ReadError("it asks for more bytes than can be meant")
        return self._stream.read(size)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int) -> int:
        if position < self.tell():
            raise tarfile.ReadError("a header that points backwards")
        return self._stream.seek(position)


def unpack_tar(compression: str, extraction: Extraction, progress: Progress) -> None:
    """Write the members of a tar archive.

    Args:
        compression: "tar" (none), "gz", "bz2" or "xz".

    Raises:
        SourceError: the archive is damaged or passes a limit.
    """
    archive = extraction.archive
    total = archive.stat().st_size
    with archive.open("rb") as raw, _decompressed(raw, compression) as stream:
        forward = _Forward(stream)
        where = "at its beginning, where the first header of a tar archive should be"
        with reading(archive, where):
            tar = tarfile.TarFile(
                fileobj=forward,  # type: ignore[arg-type]  # read, tell and seek are all that reading needs
                tarinfo=_Header,
                encoding="utf-8",
                errors="surrogateescape",
            )
        with tar:
            while (member := _next(tar, forward, archive, where)) is not None:
                where = f"at or after the member {shown(member.name)} (byte {member.offset_data:,} when unpacked)"
                _unpack_member(tar, member, extraction, where)
                progress(min(raw.tell(), total), total)
        _expect_end(forward, archive)
    progress(total, total)


def _next(tar: tarfile.TarFile, forward: _Forward, archive: Path, where: str) -> tarfile.TarInfo | None:
    """The next member; None at the end mark."""
    with reading(archive, where):
        member = tar.next()
    forward.limit = tar.offset + HEADER_BYTES
    # The reader keeps what it has seen: every member, and every record that is meant for all that follow.
    tar.members.clear()  # type: ignore[attr-defined]  # not in the stubs
    tar.pax_headers = {}
    return member


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, extraction: Extraction, where: str) -> None:
    extraction.count()
    if member.isdir():
        return
    path = extraction.admit(member.name, _unsafe_kind(member))
    if path is None:
        return
    with reading(extraction.archive, where):
        stream = tar.extractfile(member)
    if stream is None:
        raise damaged(extraction.archive, where, "a file without content")
    with stream:
        extraction.write(path, chunks(stream, extraction.archive, where))


def _unsafe_kind(member: tarfile.TarInfo) -> str | None:
    """Why what a member is makes it unsafe; None for a regular file."""
    if member.isreg():
        return None
    if member.issym():
        return f"it is a symbolic link to {shown(member.linkname)}"
    if member.islnk():
        return f"it is a hard link to {shown(member.linkname)}"
    if member.isfifo():
        return "it is a named pipe"
    if member.isdev():
        return "it is a device"
    return f"it is of the unknown type {member.type!r}"


def _expect_end(forward: _Forward, archive: Path) -> None:
    """Read what follows the end mark, since a compressed file's checksum stands at its very end."""
    where = "after its end mark"
    forward.limit = forward.tell() + PADDING_BYTES
    for chunk in chunks(forward, archive, where):
        if chunk.count(0) != len(chunk):
            raise damaged(archive, where, "more data follows, as when archives are joined end to end")


@contextmanager
def _decompressed(raw: IO[bytes], compression: str) -> Iterator[_Unpacked]:
    if compression == "tar":
        yield raw
        return
    # Each of these checks what checksums the format has, and unpacks no more at a time than it is asked for.
    openers: dict[str, Callable[[IO[bytes]], AbstractContextManager[_Unpacked]]] = {
        "gz": gzip.open,
        "bz2": bz2.open,
        "xz": lzma.open,
    }
    with openers[compression](raw) as stream:
        yield stream

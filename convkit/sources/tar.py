"""Read tar archives, plain or compressed, once from front to back in constant memory.

The standard library parses headers and reads members, with three corrections. By itself it ends silently at a damaged
header, keeps every member in memory, and reads an extended header of any size at once. Its own decompression is not
used, since it checks no checksums.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol, Self

from convkit.sources.members import Extraction, damaged_error, escape_name, read_chunks, translate_errors
from convkit.utils.progress import Progress

MAX_HEADER_BYTES = 8 << 20
"""Maximum size of all headers of one member; a path takes up to 4,096 bytes, an attribute 65,536."""
MAX_PADDING_BYTES = 1 << 30
"""Maximum number of zero bytes after the end mark; tools pad to a few kilobytes or to a tape block."""


def is_end_mark(block: bytes | bytearray) -> bool:
    """Return True for the block of zeros that follows the last member; an empty archive has nothing else."""
    return len(block) == tarfile.BLOCKSIZE and not any(block)


class _DecompressedStream(Protocol):
    """A plain file or a decompressor; they share no typed base class."""

    def read(self, size: int, /) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, position: int, /) -> int: ...


class _StrictHeader(tarfile.TarInfo):
    """Raise an error at a damaged, truncated or missing header, so that later members are not lost silently."""

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


class _ForwardStream:
    """Restrict the decompressed stream to forward reads up to `limit`, so that headers stay small in memory."""

    def __init__(self, stream: _DecompressedStream) -> None:
        self.limit = MAX_HEADER_BYTES
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size < 0 or self.tell() + size > self.limit:
            raise tarfile.ReadError("a header declares an implausible size")
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
        SourceError: the archive is damaged or exceeds a limit.
    """
    archive = extraction.archive
    total = archive.stat().st_size
    with archive.open("rb") as raw, _decompressed(raw, compression) as stream:
        forward = _ForwardStream(stream)
        where = "at its beginning, where the first header of a tar archive should be"
        with translate_errors(archive, where):
            tar = tarfile.TarFile(
                fileobj=forward,  # type: ignore[arg-type]  # read, tell and seek are all that reading needs
                tarinfo=_StrictHeader,
                encoding="utf-8",
                errors="surrogateescape",
            )
        with tar:
            while (member := _next_member(tar, forward, archive, where)) is not None:
                where = f"at or after the member {escape_name(member.name)} (byte {member.offset_data:,} when unpacked)"
                _unpack_member(tar, member, extraction, where)
                progress(min(raw.tell(), total), total)
        _check_end(forward, archive)
    progress(total, total)


def _next_member(tar: tarfile.TarFile, forward: _ForwardStream, archive: Path, where: str) -> tarfile.TarInfo | None:
    """Return the next member, or None at the end mark."""
    with translate_errors(archive, where):
        member = tar.next()
    forward.limit = tar.offset + MAX_HEADER_BYTES
    # The reader keeps all members and all global records in memory.
    tar.members.clear()  # type: ignore[attr-defined]  # not in the stubs
    tar.pax_headers = {}
    return member


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, extraction: Extraction, where: str) -> None:
    extraction.count_member()
    if member.isdir():
        return
    path = extraction.accept(member.name, _unsafe_kind(member))
    if path is None:
        return
    with translate_errors(extraction.archive, where):
        stream = tar.extractfile(member)
    if stream is None:
        raise damaged_error(extraction.archive, where, "a file without content")
    with stream:
        extraction.write(path, read_chunks(stream, extraction.archive, where))


def _unsafe_kind(member: tarfile.TarInfo) -> str | None:
    """Return why a member's type is unsafe; None for a regular file."""
    if member.isreg():
        return None
    if member.issym():
        return f"it is a symbolic link to {escape_name(member.linkname)}"
    if member.islnk():
        return f"it is a hard link to {escape_name(member.linkname)}"
    if member.isfifo():
        return "it is a named pipe"
    if member.isdev():
        return "it is a device"
    return f"it is of the unknown type {member.type!r}"


def _check_end(forward: _ForwardStream, archive: Path) -> None:
    """Read to the end after the end mark, since a compressed file's checksum comes last."""
    where = "after its end mark"
    forward.limit = forward.tell() + MAX_PADDING_BYTES
    for chunk in read_chunks(forward, archive, where):
        if chunk.count(0) != len(chunk):
            raise damaged_error(archive, where, "more data follows, as when archives are joined end to end")


@contextmanager
def _decompressed(raw: IO[bytes], compression: str) -> Iterator[_DecompressedStream]:
    if compression == "tar":
        yield raw
        return
    # Each of these verifies the format's checksums, and decompresses only as much as is read.
    openers: dict[str, Callable[[IO[bytes]], AbstractContextManager[_DecompressedStream]]] = {
        "gz": gzip.open,
        "bz2": bz2.open,
        "xz": lzma.open,
    }
    with openers[compression](raw) as stream:
        yield stream

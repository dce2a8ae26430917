"""Open row files, plain or compressed with gzip or zstd, with a limit on the decompressed size."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from convkit import layout
from convkit.errors import ConvkitError, MissingExtra

MAX_EXPANSION = 1000
"""Maximum ratio of decompressed to compressed size. Rows expand tenfold, a decompression bomb a millionfold."""
_BLOCK_BYTES = 64 * 2**10
_ZSTD_BLOCK_BYTES = 1024
"""Bytes read at a time: each may decompress to 32 KiB."""
_MAX_WINDOW = 128 * 2**20
"""Maximum memory of a zstd file, the limit of the zstd command without --long."""


@contextmanager
def open_rows(path: Path) -> Iterator[BinaryIO]:
    """Open a row file, and decompress it if its suffix says so.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: the file is not in the format of its suffix, damaged, or a decompression bomb.
        MissingExtra: the package zstandard is not installed.
    """
    if path.suffix not in layout.COMPRESSED:
        with path.open("rb", buffering=0) as file:
            yield cast(BinaryIO, file)
        return
    with path.open("rb") as file:
        parts = (_gunzipped if path.suffix == ".gz" else _unzstandard)(path, file)
        most = MAX_EXPANSION * max(path.stat().st_size, _BLOCK_BYTES)
        yield cast(BinaryIO, _Expanded(parts, most, path))


def _gunzipped(path: Path, file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as expanded:
        try:
            yield from iter(lambda: expanded.read(_BLOCK_BYTES), b"")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path, error) from None


def _unzstandard(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Decompress all frames of a file. A stream reader would not report a truncated frame, nor read the next ones."""
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra("zstandard", "zstd", f"Reading {path.name}") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame: zstandard.ZstdDecompressionObj | None = None
    try:
        while raw := file.read(_ZSTD_BLOCK_BYTES):
            while raw:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(raw)
                raw, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from None
    if frame is not None:
        raise _damaged(path, "the last frame is truncated")


def _damaged(path: Path, error: object) -> ConvkitError:
    return ConvkitError(f"{path} cannot be decompressed: {error}. Copy the file again, or compress it again.")


class _Expanded(io.RawIOBase):
    """Decompressed parts as a stream that raises an error above a size limit."""

    def __init__(self, parts: Iterator[bytes], most: int, path: Path) -> None:
        self._parts, self._left, self._path = parts, most, path
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._count(len(part))
            self._rest = memoryview(part)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ConvkitError(
                f"{self._path} decompresses to more than {MAX_EXPANSION:,} times its size, which rows never do. "
                "Decompress it yourself if you trust it."
            )

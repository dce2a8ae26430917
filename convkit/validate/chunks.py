"""Cut row files at line ends into chunks, which worker processes parse in parallel.

The main process reads each file once, for its digest and to find the line ends. Of an uncompressed file a worker gets
the byte range and reads it itself, which is cheaper than sending it. Of a compressed file it gets the bytes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from io import RawIOBase
from typing import NamedTuple, cast

from convkit import layout
from convkit.errors import ConvkitError
from convkit.rules.base import RowFile
from convkit.rules.file import most_keys
from convkit.utils.compressed import open_rows

CHUNK_BYTES = 2**20


class RowChunk(NamedTuple):
    """A chunk of a row file: whole lines."""

    path: str
    offset: int
    size: int
    first_line: int
    """The number of the first line, from 1."""
    data: bytes | None
    """The lines themselves, if the worker cannot read them from the file."""
    max_keys: int
    """Upper bound of the number of keys, by `convkit.rules.file.most_keys`. Counted in the main process, because
    importing NumPy costs a worker as much time as 10 MB of rows."""
    overlong: bool = False
    """The chunk is a single line that exceeds the size limit."""

    def read(self) -> bytes:
        """Return the bytes of the lines."""
        if self.data is not None:
            return self.data
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def read_chunks(
    file: RowFile, max_line: int, on_block: Callable[[int], object], *, with_digest: bool = True
) -> Iterator[RowChunk]:
    """Yield the chunks of a row file in order, then set `file.sha256` if `with_digest`.

    Args:
        max_line: maximum bytes per line, without its line end; this and `CHUNK_BYTES` bound the memory.
        on_block: called with the decompressed size of each block.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: the file changed while it was read.
    """
    digest = hashlib.sha256()
    path = os.fspath(file.path)
    plain = file.path.suffix not in layout.COMPRESSED
    with open_rows(file.path) as opened, io.BufferedReader(cast(RawIOBase, opened), CHUNK_BYTES) as stream:
        before = os.stat(path)
        start, line, rest, overlong = 0, 1, b"", False
        position = 0
        while block := stream.read(CHUNK_BYTES):
            if with_digest:
                digest.update(block)
            position += len(block)
            on_block(len(block))
            if overlong:
                end = block.find(b"\n") + 1
                if not end:
                    continue
                yield RowChunk(path, start, 0, line, b"", 0, overlong=True)
                start, line, block, overlong = position - len(block) + end, line + 1, block[end:], False
            if end := block.rfind(b"\n") + 1:
                lines = rest + block[:end]
                yield RowChunk(path, start, len(lines), line, None if plain else lines, most_keys(lines))
                start, line, rest = start + len(lines), line + _count_line_ends(lines), block[end:]
            else:
                rest += block
            if len(rest) > max_line:
                rest, overlong = b"", True
        if overlong or rest:
            yield RowChunk(path, start, len(rest), line, None if plain and rest else rest, most_keys(rest), overlong)
        if _file_identity(os.stat(path)) != _file_identity(before):
            raise ConvkitError(f"{file.name} changed while it was read. Run the same command again.")
    if with_digest:
        file.sha256 = digest.hexdigest()


def _count_line_ends(lines: bytes) -> int:
    import numpy as np

    # Four times as fast as bytes.count, in the process that all workers wait for.
    return int(np.count_nonzero(np.frombuffer(lines, np.uint8) == ord("\n")))


def _file_identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino

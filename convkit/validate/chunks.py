"""Row files cut at line ends into pieces, which workers parse at the same time.

The main process reads each file once, for its digest and to find the line ends. Of a plain file workers are told the
byte range and read it themselves, which costs less than sending; of a compressed one they are sent the bytes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from io import RawIOBase
from typing import NamedTuple, cast

from convkit import layout
from convkit.dataset import open_rows
from convkit.errors import ConvkitError
from convkit.rules.base import RowFile
from convkit.rules.file import most_keys

PIECE_BYTES = 2**20


class Piece(NamedTuple):
    """Whole lines of a row file."""

    path: str
    offset: int
    size: int
    first_line: int
    """The number of the first line, from 1."""
    data: bytes | None
    """The lines themselves, where they cannot be read from the file."""
    most_keys: int
    """See `convkit.rules.file.most_keys`. Counted where NumPy is in use: to load it costs a worker as much as 10 MB of
    rows."""
    overlong: bool = False
    """A single line that is too long to be read."""

    def read(self) -> bytes:
        """The bytes of the lines."""
        if self.data is not None:
            return self.data
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def cut(file: RowFile, max_line: int, watch: Callable[[int], object], *, with_digest: bool = True) -> Iterator[Piece]:
    """Yield the pieces of a row file in order; then `file.sha256` is set, if it is asked for.

    Args:
        max_line: the most bytes of a line, without its line end; memory is bounded by this and `PIECE_BYTES`.
        watch: called with the size of each block, decompressed.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: the file changed while it was read.
    """
    digest = hashlib.sha256()
    path = os.fspath(file.path)
    plain = file.path.suffix not in layout.COMPRESSED
    with open_rows(file.path) as opened, io.BufferedReader(cast(RawIOBase, opened), PIECE_BYTES) as stream:
        before = os.stat(path)
        start, line, rest, overlong = 0, 1, b"", False
        after = 0
        while block := stream.read(PIECE_BYTES):
            if with_digest:
                digest.update(block)
            after += len(block)
            watch(len(block))
            if overlong:
                end = block.find(b"\n") + 1
                if not end:
                    continue
                yield Piece(path, start, 0, line, b"", 0, overlong=True)
                start, line, block, overlong = after - len(block) + end, line + 1, block[end:], False
            if end := block.rfind(b"\n") + 1:
                lines = rest + block[:end]
                yield Piece(path, start, len(lines), line, None if plain else lines, most_keys(lines))
                start, line, rest = start + len(lines), line + _line_ends(lines), block[end:]
            else:
                rest += block
            if len(rest) > max_line:
                rest, overlong = b"", True
        if overlong or rest:
            yield Piece(path, start, len(rest), line, None if plain and rest else rest, most_keys(rest), overlong)
        if _identity(os.stat(path)) != _identity(before):
            raise ConvkitError(f"{file.name} has changed while it was read. Run the same command again.")
    if with_digest:
        file.sha256 = digest.hexdigest()


def _line_ends(lines: bytes) -> int:
    import numpy as np

    # A quarter of the time of bytes.count, in the process that all workers wait for.
    return int(np.count_nonzero(np.frombuffer(lines, np.uint8) == ord("\n")))


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino

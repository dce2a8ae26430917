"""What a container says of its own length: the sign of a file that was cut short in a copy or download."""

import os
from pathlib import Path
from typing import BinaryIO

_BOX_HEADER = 8
_LARGE_SIZE = 16
_MAX_BOXES = 10_000
_UNKNOWN_SIZE = b"\xff" * 4  # what is written to a pipe, where the size cannot be filled in afterwards


def cut_short(path: Path) -> str | None:
    """Say how much of an AVI (RIFF) or MP4/MOV (ISO 14496-12) file is missing at its end, or None.

    Other containers do not state their length where it could be compared; for them the answer is None.
    """
    with path.open("rb") as file:
        head = file.read(_BOX_HEADER + 4)
        size = os.fstat(file.fileno()).st_size
        if head[:4] == b"RIFF" and head[4:8] != _UNKNOWN_SIZE:
            stated = int.from_bytes(head[4:8], "little") + _BOX_HEADER
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            stated = _end_of_boxes(file, size)
        else:
            return None
    return f"the file is cut short: {size:,} of {stated:,} bytes" if stated > size else None


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last top-level box says that it ends; `size` when the chain is sound or cannot be followed."""
    position = 0
    for _ in range(_MAX_BOXES):
        if position + _BOX_HEADER > size:
            break
        file.seek(position)
        header = file.read(_LARGE_SIZE)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < _BOX_HEADER:  # 0: to the end of the file; anything else is not a box
            return size
        position += length
    return max(position, size)

"""Detect truncated videos from the length that their container declares."""

import os
from pathlib import Path
from typing import BinaryIO

_BOX_HEADER = 8
_LARGE_SIZE = 16
_MAX_BOXES = 10_000
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_ID_BYTES = 4  # of both of these elements
_UNKNOWN_SIZE = b"\xff" * 4  # written to a pipe, where the size cannot be filled in afterwards


def truncation_reason(path: Path) -> str | None:
    """Return how much of an AVI (RIFF), MP4/MOV (ISO 14496-12) or Matroska/WebM (RFC 9559) file is missing, or None.

    Other containers declare no length that could be compared; for them the result is None.
    """
    with path.open("rb") as file:
        head = file.read(_BOX_HEADER + 4)
        size = os.fstat(file.fileno()).st_size
        if head[:4] == b"RIFF" and head[4:8] != _UNKNOWN_SIZE:
            stated = int.from_bytes(head[4:8], "little") + _BOX_HEADER
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            stated = _end_of_boxes(file, size)
        elif head[:4] == _EBML:
            stated = _end_of_segment(file, size)
        else:
            return None
    return f"the file is cut short: {size:,} of {stated:,} bytes" if stated > size else None


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Return the end of the last top-level box; `size` if the boxes are valid or cannot be followed."""
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


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Return the end of the segment after the EBML header; `size` if it is not declared, as in a live stream."""
    position = 0
    for element in (_EBML, _SEGMENT):
        file.seek(position)
        if file.read(_ID_BYTES) != element or (length := _read_length(file)) is None:
            return size
        position = file.tell() + length
    return position


def _read_length(file: BinaryIO) -> int | None:
    """Read an EBML length of 1 to 8 bytes: one leading zero bit per following byte, a one bit, and the number.

    None if all bits of the number are set (unknown length), or if there is no valid length.
    """
    first = file.read(1)
    if not first or not first[0]:
        return None
    following = 8 - first[0].bit_length()
    rest = file.read(following)
    unknown = (1 << 7 * (following + 1)) - 1
    length = int.from_bytes(first + rest, "big") & unknown
    return length if len(rest) == following and length != unknown else None

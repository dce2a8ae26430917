"""Recognize plain RGB JPEGs by their markers alone, which covers most images of large datasets.

Pillow parses every header into tables that are not needed here, which takes longer than all other work on an image. It
is still used for any other file: EXIF or XMP may require a rotation, and rare markers may mean a format that decoders
refuse.
"""

from convkit.media.images import MAX_PIXELS

START, END = b"\xff\xd8", b"\xff\xd9"
_JFIF = b"\xff\xe0\x00\x10JFIF\0"
_QUANTIZATION = b"\xff\xdb"
_SCAN = b"\xff\xda\x00\x0c\x03"
"""The start-of-scan marker, with the length for three components."""
_SCAN_BYTES = 14
_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
"""Sequential and progressive frames; lossless, hierarchical and arithmetic ones are rare."""
_OTHERS = (b"\xff\xc4", b"\xff\xdd", b"\xff\xfe")
"""Huffman tables, restart interval, comment."""
_FRAME_OF_RGB = b"\x00\x11\x08"
"""17 bytes, the length for three components, and 8 bits per sample."""
_TABLE = 65
"""Bytes of an 8-bit quantization table, including its number."""


def is_plain(data: bytes) -> bool:
    """Return True if a file is certainly a complete upright JPEG in 8-bit RGB within the size limits.

    As in `convkit.media.ingest`, complete means that the end marker is present; the pixel data is not checked.
    """
    if not (data.startswith(START) and data.endswith(END)):
        return False
    position, frames = len(START), 0
    while not data.startswith(_SCAN, position):
        marker = data[position : position + 2]
        behind = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker in _FRAMES:
            frames += 1
            fits = _is_rgb(data[position + 2 : behind])
        elif marker == _QUANTIZATION:
            fits = _are_tables(data[position + 4 : behind])
        else:
            fits = marker in _OTHERS or data.startswith(_JFIF, position)
        if not fits:
            return False
        position = behind
    return frames == 1 and len(data) > position + _SCAN_BYTES


def _is_rgb(frame: bytes) -> bool:
    """Return True for a frame of three components, with any chroma sampling and a size within the limits."""
    height, width = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7])
    return frame.startswith(_FRAME_OF_RGB) and frame[7:8] == b"\3" and 0 < width * height <= MAX_PIXELS


def _are_tables(content: bytes) -> bool:
    """Return True for complete 8-bit quantization tables, numbered from 0 to 3."""
    return len(content) % _TABLE == 0 and max(content[::_TABLE], default=0) < 4

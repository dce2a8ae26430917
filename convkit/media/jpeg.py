"""JPEGs that are so plain that their markers alone tell it: most of what a large source holds.

Pillow reads every header into tables that nobody here asks for, which takes longer than all else that is done for an
image. It is still asked wherever anything leaves a doubt: a file with EXIF or XMP may have to be turned, and one with
rare markers may be of a kind that decoders refuse.
"""

from convkit.media.images import MAX_PIXELS

START, END = b"\xff\xd8", b"\xff\xd9"
_JFIF = b"\xff\xe0\x00\x10JFIF\0"
_QUANTIZATION = b"\xff\xdb"
_SCAN = b"\xff\xda\x00\x0c\x03"
"""With the length that three components take."""
_SCAN_BYTES = 14
_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
"""Sequential and progressive; lossless, hierarchical and arithmetic ones are rare."""
_OTHERS = (b"\xff\xc4", b"\xff\xdd", b"\xff\xfe")
"""Huffman tables, restart interval, comment."""
_FRAME_OF_RGB = b"\x00\x11\x08"
"""17 bytes, as three components take, of 8 bits."""
_TABLE = 65
"""Bytes of a quantization table of 8 bits, behind its number."""


def is_plain(data: bytes) -> bool:
    """Whether a file is certain to be a whole JPEG in 8-bit RGB that stands upright and is no pixel bomb.

    Whole means what it means in `convkit.media.ingest`: nothing between the header and the end marker is looked at.
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
    """Of three components: 4:4:4 to 4:2:0 or any other sampling, of a size within bounds."""
    height, width = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7])
    return frame.startswith(_FRAME_OF_RGB) and frame[7:8] == b"\3" and 0 < width * height <= MAX_PIXELS


def _are_tables(content: bytes) -> bool:
    """Whether these are whole tables of 8 bits, numbered from 0 to 3."""
    return len(content) % _TABLE == 0 and max(content[::_TABLE], default=0) < 4

"""Remove metadata from a JPEG or PNG if Pillow cannot parse it and so cannot read the pixels.

EXIF and XMP stay, since they may require a rotation. Data that belongs to the pixels stays, too: a PNG's transparent
colour, and the segment with a JPEG's colour space. Pillow does not fail on EXIF and XMP.
"""

import struct
from collections.abc import Iterator

from convkit.media import jpeg

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_EXIF, _ADOBE, _SCAN = 0xE1, 0xEE, 0xDA
_ADOBE_BYTES = 14
_KEPT_CHUNKS = (b"tRNS", b"eXIf")


def strip_metadata(data: bytes) -> bytes | None:
    """Return the file without metadata; None if it has none, or is not a complete JPEG or PNG."""
    if data.startswith(jpeg.START):
        parts, end = _kept_jpeg_segments(data), jpeg.END
    elif data.startswith(PNG_SIGNATURE):
        parts, end = _kept_png_chunks(data), END_OF_PNG
    else:
        return None
    rest = bytearray()
    for part in parts:
        rest += part
    return bytes(rest) if rest.endswith(end) and len(rest) < len(data) else None


def _kept_jpeg_segments(data: bytes) -> Iterator[bytes]:
    """Yield the header segments to keep, and everything from the first scan on."""
    yield jpeg.START
    position = len(jpeg.START)
    while position + 4 <= len(data):
        mark, marker, length = struct.unpack_from(">BBH", data, position)
        if mark != 0xFF or marker == _SCAN or length < 2:
            break
        segment = data[position : position + 2 + length]
        whole_adobe = marker == _ADOBE and len(segment) >= _ADOBE_BYTES
        if marker & 0xF0 != 0xE0 or marker == _EXIF or whole_adobe:
            yield segment
        position += len(segment)
    yield data[position:]


def _kept_png_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks to keep; the names of chunks that a decoder needs start with an upper-case letter."""
    yield PNG_SIGNATURE
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        if name[:1].isupper() or name in _KEPT_CHUNKS:
            yield chunk
        if name == b"IEND":
            return
        position += len(chunk)

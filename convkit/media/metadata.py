"""Taking metadata out of a JPEG or PNG, where what cannot be parsed of it keeps Pillow from the pixels.

EXIF and XMP stay, because they may want the image turned, and so does what belongs to the pixels: a PNG's transparent
colour, and the segment that tells what colours a JPEG is in. None of the former has Pillow give up.
"""

import struct
from collections.abc import Iterator

from convkit.media import jpeg

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_EXIF, _ADOBE, _SCAN = 0xE1, 0xEE, 0xDA
_ADOBE_BYTES = 14
_STAYS = (b"tRNS", b"eXIf")


def without(data: bytes) -> bytes | None:
    """The file without metadata; None where it holds none, or is no whole JPEG or PNG."""
    if data.startswith(jpeg.START):
        parts, end = _of_jpeg(data), jpeg.END
    elif data.startswith(PNG_SIGNATURE):
        parts, end = _of_png(data), END_OF_PNG
    else:
        return None
    rest = bytearray()
    for part in parts:
        rest += part
    return bytes(rest) if rest.endswith(end) and len(rest) < len(data) else None


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    """What stays of the header, and all from the first scan on."""
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


def _of_png(data: bytes) -> Iterator[bytes]:
    """The chunks that stay: those that a decoder needs have names in upper case."""
    yield PNG_SIGNATURE
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        if name[:1].isupper() or name in _STAYS:
            yield chunk
        if name == b"IEND":
            return
        position += len(chunk)

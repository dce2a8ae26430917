"""Pixels are kept if Pillow cannot parse the metadata."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from convkit.errors import ItemError
from convkit.media.ingest import METADATA_NOTE, ingest
from convkit.media.metadata import strip_metadata

PIXELS = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)


def encoded(kind: str, orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(name: bytes, content: bytes, checksum_error: int = 0) -> bytes:
    checksum = zlib.crc32(name + content) ^ checksum_error
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


BROKEN = {
    "no rest of a profile": ("JPEG", segment(0xE2, b"ICC_PROFILE\0")),
    "half a JFIF segment": ("JPEG", segment(0xE0, b"JFIF")),
    "half an Adobe segment": ("JPEG", segment(0xEE, b"Adobe")),
    "half an image resource": ("JPEG", segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
    "no profile": ("PNG", chunk(b"iCCP", b"x")),
    "half a gamma": ("PNG", chunk(b"gAMA", b"a")),
    "no such animation": ("PNG", chunk(b"acTL", b"a")),
    "a text that swells": ("PNG", chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(5_000_000)))),
    "a text that changed": ("PNG", chunk(b"tEXt", b"k\0text", checksum_error=1)),
}


def with_broken(name: str, orientation: int = 1) -> bytes:
    kind, part = BROKEN[name]
    data = encoded(kind, orientation)
    place = 2 if kind == "JPEG" else 33
    return data[:place] + part + data[place:]


def pixels(data: bytes) -> list[int]:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return list(image.convert("RGB").tobytes())


@pytest.mark.parametrize("name", BROKEN)
def test_pixels_are_kept_without_the_broken_metadata(name: str) -> None:
    data = with_broken(name)
    with pytest.raises((PIL.UnidentifiedImageError, ValueError, SyntaxError)):
        pixels(data)
    stored = ingest(data)
    assert stored.notes == (METADATA_NOTE,)
    assert pixels(stored.data) == pixels(encoded(BROKEN[name][0]))


@pytest.mark.parametrize("name", ["no rest of a profile", "no profile"])
def test_the_orientation_is_still_applied(name: str) -> None:
    stored = ingest(with_broken(name, orientation=6))
    assert stored.notes == (METADATA_NOTE, "EXIF orientation applied")
    with PIL.Image.open(io.BytesIO(stored.data)) as image:
        assert image.size == (16, 24)


@pytest.mark.parametrize("name", BROKEN)
def test_incomplete_pixels_are_refused_with_the_first_reason(name: str) -> None:
    data = with_broken(name)
    with pytest.raises(ItemError, match="undecodable-image"):
        ingest(data[: -len(data) // 3])


def test_an_empty_segment_ends_the_search() -> None:
    assert strip_metadata(b"\xff\xd8" + b"\xff\xe0\0\0" * 3 + encoded("JPEG")[2:]) is None


def test_a_truncated_png_is_not_completed() -> None:
    assert strip_metadata(with_broken("half a gamma")[:-1]) is None

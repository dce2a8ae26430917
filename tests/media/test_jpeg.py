"""The markers of a JPEG give the same result as Pillow."""

import io
import re
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.media.images import open_image
from convkit.media.ingest import ingest
from convkit.media.jpeg import END, is_plain

SCAN = b"\xff\xda"
TELLING = [0, 1, 2, 3, 4, 8, 12, 16, 17, 65, 192, 194, 196, 218, 219, 221, 224, 225, 254, 255]
"""Bytes with a meaning in a header: markers, lengths, counts."""


def encoded(mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)
    PIL.Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


PLAIN: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"subsampling": 0, "quality": 100},
    {"comment": b"a comment", "dpi": (72, 72)},
    {"restart_marker_blocks": 1},
]


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_a_plain_jpeg_is_stored_without_opening_it(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(**options)
    monkeypatch.setattr("PIL.Image.open", None)
    assert is_plain(data)
    assert ingest(data).data == data


def with_frame(place: int, *values: int) -> bytes:
    """Change bytes in the frame header of a plain file: precision, height, width, component count."""
    data = bytearray(encoded())
    start = data.index(b"\xff\xc0") + 4 + place
    data[start : start + len(values)] = values
    return bytes(data)


DOUBTS = {
    "grey": encoded("L"),
    "ink": encoded("CMYK"),
    "exif": encoded(exif=b"Exif\0\0"),
    "xmp": encoded(xmp=b"<x/>"),
    "cut": encoded()[:-1],
    "cut in the header": encoded()[: encoded().index(SCAN)] + END,
    "cut in the scan's header": encoded()[: encoded().index(SCAN) + 5] + END,
    "something behind the end": encoded() + b"\0",
    "lossless": encoded().replace(b"\xff\xc0", b"\xff\xc3"),
    "twelve bits": with_frame(0, 12),
    "no rows": with_frame(1, 0, 0),
    "a pixel bomb": with_frame(1, 255, 255, 255, 255),
    "two frames": encoded().replace(
        b"\xff\xc4", with_frame(0)[with_frame(0).index(b"\xff\xc0") :][:19] + b"\xff\xc4", 1
    ),
    "four components": with_frame(5, 4),
    "a short table": re.sub(rb"\xff\xdb\0\x43\0.", b"\xff\xdb\0\x42\0", encoded(), count=1, flags=re.DOTALL),
    "a table of 16 bits": encoded().replace(b"\xff\xdb\0\x43\0", b"\xff\xdb\0\x43\x10", 1),
    "no jpeg": b"\x89PNG" + END,
    "nothing": b"",
}


@pytest.mark.parametrize("name", DOUBTS)
def test_all_other_jpegs_are_left_to_pillow(name: str) -> None:
    assert not is_plain(DOUBTS[name])


@given(
    st.sampled_from([encoded(**options) for options in PLAIN]),
    st.lists(st.tuples(st.floats(0, 1), st.one_of(st.sampled_from(TELLING), st.integers(0, 255))), max_size=3),
)
def test_pillow_agrees_on_changed_headers(data: bytes, changes: list[tuple[float, int]]) -> None:
    changed = bytearray(data)
    header = data.index(SCAN) + 14
    for place, value in changes:
        changed[int(place * (header - 1))] = value
    if is_plain(bytes(changed)):
        with open_image(io.BytesIO(changed)) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            assert image.getexif().get(0x0112) is None

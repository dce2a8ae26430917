"""Every image is stored as models read it, or refused with the correct reason.

The references are made with Pillow and numpy alone, independently of `convkit.media.ingest`.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from convkit.errors import ItemError
from convkit.media.ingest import IngestedImage, ingest
from tests.media.pictures import RAMP, check_stored, encoded, picture, pixels, png, shared_files, tiff

NOT_AN_IMAGE = "the image is not one of JPEG, PNG, WEBP, GIF, BMP, TIFF"
REFUSED = {
    "PILLOW_LICENSE.txt": ("undecodable-image", NOT_AN_IMAGE),
    "README.txt": ("undecodable-image", NOT_AN_IMAGE),
    "decompression_bomb.ico": ("undecodable-image", NOT_AN_IMAGE),
    "decompression_bomb.gif": ("pixel-bomb", "more than 178,956,970 pixels"),
    "broken.png": ("undecodable-image", "begins as PNG but cannot be read as such: broken PNG file"),
    "broken_data_stream.png": ("undecodable-image", "unrecognized data stream contents"),
    "multipage_rgb.tif": ("undecodable-image", "begins as TIFF but cannot be read as such: unknown pixel mode"),
    "shortfile.bmp": ("undecodable-image", "image file is truncated"),
    "truncated_end_chunk.png": ("undecodable-image", "Truncated File Read"),
    "truncated_image.png": ("undecodable-image", "image file is truncated"),
    "truncated_jpeg.jpg": ("undecodable-image", "image file is truncated"),
}
NOTES = {
    "16bit.cropped.tif": {"16-bit scaled to 8-bit", "TIFF stored as PNG"},
    "chessboard_RGB.png": {"16-bit scaled to 8-bit"},
    "hopper_gray.jpg": {"L converted to RGB"},
    "hopper_orientation_6.jpg": {"EXIF orientation applied"},
    "hopper_orientation_8.jpg": {"EXIF orientation applied"},
    "i_trns.png": {"16-bit scaled to 8-bit", "alpha flattened on white"},
    "iss634.webp": {
        "alpha flattened on white",
        "first frame of an animation or of several pages",
        "WEBP stored as PNG",
    },
    "multipage.tif": {"L converted to RGB", "first frame of an animation or of several pages", "TIFF stored as PNG"},
    "pil_sample_cmyk.jpg": {"CMYK converted to RGB"},
    "rgb_trns.png": {"alpha flattened on white"},
}
UNTOUCHED = {"exif_typeerror.jpg", "invalid-exif.jpg", "hopper.jpg", "retina.jpg", "chelsea.png", "document_0.png"}


def test_every_sample_image_is_stored_correctly_or_refused_with_its_reason(shared_data: Path) -> None:
    refused, untouched = {}, set()
    for path in shared_files(shared_data):
        data = path.read_bytes()
        try:
            stored = ingest(data)
        except ItemError as error:
            refused[path.name] = (error.rule, error.reason)
            continue
        check_stored(stored, data)
        if path.name in NOTES:
            assert set(stored.notes) == NOTES[path.name], path.name
        if not stored.notes:
            untouched.add(path.name)
    assert refused.keys() == REFUSED.keys()
    for name, (rule, reason) in REFUSED.items():
        assert refused[name][0] == rule
        assert reason in refused[name][1]
    assert untouched >= UNTOUCHED


@pytest.mark.parametrize("name", ["exif_typeerror.jpg", "invalid-exif.jpg", "hopper_bad_exif.jpg"])
def test_pixels_are_kept_if_metadata_is_broken(shared_data: Path, name: str) -> None:
    data = (shared_data / "data/nasty" / name).read_bytes()
    check_stored(ingest(data), data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_an_upright_rgb_image_keeps_its_bytes(kind: str, orientation: int | None) -> None:
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    assert ingest(data) == IngestedImage(data, ".jpg" if kind == "JPEG" else ".png", ())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(), kind, exif=exif, **options)
    stored = ingest(data)
    check_stored(stored, data)
    with PIL.Image.open(io.BytesIO(stored.data)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.size == ((40, 60) if orientation > 4 else (60, 40))


YCBCR = pytest.param(
    "YCbCr",
    marks=pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 cannot read the YCbCr TIFF that it writes"
    ),
)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", YCBCR, "LAB", "PA"])
def test_every_mode_of_a_tiff_becomes_rgb(mode: str) -> None:
    data = encoded(picture(mode if mode != "PA" else "P").convert(mode), "TIFF")
    stored = ingest(data)
    check_stored(stored, data)
    assert "TIFF stored as PNG" in stored.notes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_of_a_png_becomes_rgb(mode: str) -> None:
    data = encoded(picture(mode), "PNG")
    check_stored(ingest(data), data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "progressive": True}])
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_mode_of_a_jpeg_becomes_rgb(mode: str, options: dict[str, Any]) -> None:
    data = encoded(picture(mode), "JPEG", **options)
    stored = ingest(data)
    check_stored(stored, data)
    assert stored.suffix == ".jpg"


def grey_ramp(stored: IngestedImage) -> np.ndarray[Any, Any]:
    """Return the pixels of a stored grey image."""
    found = pixels(stored.data)
    assert (found == found[..., :1]).all()
    assert "16-bit scaled to 8-bit" in stored.notes
    return found[..., 0]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    expected = np.arange(0, 256, 5).reshape(4, 13)
    deep = encoded(PIL.Image.fromarray(RAMP), "PNG")
    with PIL.Image.open(io.BytesIO(deep)) as image:
        assert image.mode == "I;16"
    for data in (deep, tiff(RAMP, "<"), tiff(RAMP, ">")):
        assert (grey_ramp(ingest(data)) == expected).all()


def test_a_tiff_with_zero_as_white_is_inverted() -> None:
    assert (grey_ramp(ingest(tiff(RAMP, "<", photometric=0))) == 255 - np.arange(0, 256, 5).reshape(4, 13)).all()


def test_twelve_bits_are_scaled_by_their_full_range() -> None:
    values = np.array([[0, 2048, 4095, 1024]])
    assert grey_ramp(ingest(tiff(values, "<", bits=12))).tolist() == [[0, 128, 255, 64]]


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (np.array([[0, 65535]], np.int32), [0, 255], "16-bit scaled to 8-bit"),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255], "integers scaled from their range to 8-bit"),
        (np.array([[0, 1 << 30]], np.int32), [0, 255], "integers scaled from their range to 8-bit"),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255], "floats scaled from their range to 8-bit"),
        (np.array([[3, 3]], np.float32), [0, 0], "floats scaled from their range to 8-bit"),
    ],
)
def test_wider_values_are_scaled_by_their_range(values: np.ndarray[Any, Any], expected: list[int], note: str) -> None:
    stored = ingest(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert pixels(stored.data)[0, :, 0].tolist() == expected
    assert note in stored.notes


def test_values_that_are_not_finite_are_refused() -> None:
    data = encoded(PIL.Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")
    with pytest.raises(ItemError, match="values that are not finite"):
        ingest(data)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_several_channels_are_noted(kind: int, channels: int) -> None:
    row = b"\0" + struct.pack(f">{2 * channels}H", *([65535] * 2 * channels))
    stored = ingest(png(2, 1, 16, kind, row))
    assert "16-bit scaled to 8-bit" in stored.notes
    assert (pixels(stored.data) == 255).all()


@pytest.mark.parametrize(
    ("depth", "kind", "row", "key", "expected"),
    [
        (1, 0, b"\x40", struct.pack(">H", 0), [255, 255]),
        (2, 0, b"\x60", struct.pack(">H", 1), [255, 170]),
        (4, 0, b"\x12", struct.pack(">H", 1), [255, 34]),
        (8, 0, b"\x01\x02", struct.pack(">H", 1), [255, 2]),
        (16, 0, struct.pack(">2H", 514, 771), struct.pack(">H", 514), [255, 3]),
        (8, 2, b"\x01\x01\x01\x02\x02\x02", struct.pack(">3H", 1, 1, 1), [255, 2]),
        (16, 2, struct.pack(">6H", *[514] * 3, *[771] * 3), struct.pack(">3H", *[514] * 3), [255, 3]),
        (8, 3, b"\0\1", b"\0", [255, 7]),
    ],
)
def test_the_transparent_colour_of_a_png_becomes_white(
    depth: int, kind: int, row: bytes, key: bytes, expected: list[int]
) -> None:
    palette = [(b"PLTE", b"\x09\x09\x09\x07\x07\x07")] if kind == 3 else []
    stored = ingest(png(2, 1, depth, kind, b"\0" + row, *palette, (b"tRNS", key)))
    assert pixels(stored.data)[0, :, 0].tolist() == expected
    assert "alpha flattened on white" in stored.notes


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_stored(kind: str) -> None:
    others = [picture().rotate(180), picture().transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM)]
    data = encoded(picture(), kind, save_all=True, append_images=others)
    stored = ingest(data)
    check_stored(stored, data)
    assert "first frame of an animation or of several pages" in stored.notes


def test_broken_frames_after_the_first_are_ignored() -> None:
    data = encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)])
    stored = ingest(data[:-30])
    check_stored(stored, data)


def test_a_camera_jpeg_with_previews_keeps_its_bytes() -> None:
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture().resize((6, 4))])
    assert ingest(data) == IngestedImage(data, ".jpg", ())


def test_a_colour_profile_for_another_mode_is_removed() -> None:
    stored = ingest(encoded(picture("CMYK"), "TIFF", icc_profile=b"profile of printing inks"))
    with PIL.Image.open(io.BytesIO(stored.data)) as image:
        assert "icc_profile" not in image.info

"""Whatever image a source brings: it is stored as models read it, or refused with the true reason.

The references are made by Pillow and numpy alone, from the file, in another way than `convkit.media.ingest` goes.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.errors import ItemError
from convkit.media.images import MAX_PIXELS, ImageInfo, ImageProblem, inspect_file
from convkit.media.ingest import IngestedImage, ingest

FOLDERS = ("nasty", "images/skimage", "docvqa/pages")
LOSSY_ERROR = 3.0
"""Mean difference of a pixel after one more JPEG of quality 95."""

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
FEW = 25


def shared_files(root: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / "data" / folder).iterdir())]


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """What a model is shown of a stored image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes that stay as they are keep their bad metadata
        with PIL.Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            return np.asarray(image).astype(int)


def reference(data: bytes) -> np.ndarray[Any, Any]:
    """The first frame upright, on white, in RGB; wide integers divided by 257, as floats."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(float)
            if "transparency" in image.info:
                values[values == image.info["transparency"]] = 65535
            return np.repeat((values / 257)[..., None], 3, axis=2)
        try:
            PIL.ImageOps.exif_transpose(image, in_place=True)
        except Exception:
            assert image.size  # the metadata is broken, the pixels are not
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB")).astype(int)
        rgba = np.asarray(image.convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        return rgba[..., :3] * alpha + 255 * (1 - alpha)


def check_stored(stored: IngestedImage, data: bytes) -> None:
    """What holds of every image that is stored."""
    with PIL.Image.open(io.BytesIO(stored.data), formats=["JPEG", "PNG"]) as image:
        assert stored.suffix == {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png"}[image.format or ""]
    assert (stored.data == data) == (stored.notes == ())
    difference = np.abs(pixels(stored.data) - reference(data))
    if stored.suffix == ".png":
        assert difference.max() <= 1  # rounding
    else:
        assert difference.mean() <= LOSSY_ERROR


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any bit depth; `rows` with a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(values: np.ndarray[Any, Any], byte_order: str, photometric: int = 1, bits: int = 16) -> bytes:
    """An uncompressed TIFF of 16-bit words (or of packed 12-bit ones) in one channel."""
    height, width = values.shape
    words = values.astype(f"{byte_order}u2").tobytes()
    if bits == 12:
        digits = "".join(f"{v:03x}" for v in values.ravel())
        words = bytes.fromhex(digits + "0" * (len(digits) % 2))
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 122), (277, 1), (278, height)]
    tags.append((279, len(words)))
    entries = b"".join(struct.pack(f"{byte_order}HHI", tag, 4, 1) + struct.pack(f"{byte_order}I", v) for tag, v in tags)
    mark = b"II*\0" if byte_order == "<" else b"MM\0*"
    directory = struct.pack(f"{byte_order}H", len(tags)) + entries + struct.pack(f"{byte_order}I", 0)
    return (mark + struct.pack(f"{byte_order}I", 8) + directory).ljust(122, b"\0") + words


def saved(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> PIL.Image.Image:
    """Smooth, so that JPEG hardly changes it, and different in every corner."""
    y, x = np.mgrid[0:40, 0:60]
    image = PIL.Image.fromarray(np.stack([x * 4, y * 6, 200 - x - y], axis=2).astype(np.uint8))
    if mode in ("L", "1", "LA"):
        image = image.convert("L")
    image = image.convert(mode)
    if image.mode in ("LA", "RGBA"):
        image.putalpha(PIL.Image.fromarray((x * 4).astype(np.uint8)))
    return image


def test_every_shared_file_is_stored_right_or_refused_with_the_true_reason(shared_data: Path) -> None:
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
def test_bad_metadata_never_costs_good_pixels(shared_data: Path, name: str) -> None:
    data = (shared_data / "data/nasty" / name).read_bytes()
    check_stored(ingest(data), data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_an_upright_rgb_image_stays_as_it_is_to_the_byte(kind: str, orientation: int | None) -> None:
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    data = saved(picture(), kind, exif=exif)
    assert ingest(data) == IngestedImage(data, ".jpg" if kind == "JPEG" else ".png", ())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(picture(), kind, exif=exif, **options)
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
    data = saved(picture(mode if mode != "PA" else "P").convert(mode), "TIFF")
    stored = ingest(data)
    check_stored(stored, data)
    assert "TIFF stored as PNG" in stored.notes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_mode_of_a_png_becomes_rgb(mode: str) -> None:
    data = saved(picture(mode), "PNG")
    check_stored(ingest(data), data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "progressive": True}])
@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_every_mode_of_a_jpeg_becomes_rgb(mode: str, options: dict[str, Any]) -> None:
    data = saved(picture(mode), "JPEG", **options)
    stored = ingest(data)
    check_stored(stored, data)
    assert stored.suffix == ".jpg"


RAMP = np.arange(0, 65536, 257 * 5, dtype=np.uint16).reshape(4, 13)


def grey_ramp(stored: IngestedImage) -> np.ndarray[Any, Any]:
    """The stored image, which is grey."""
    found = pixels(stored.data)
    assert (found == found[..., :1]).all()
    assert "16-bit scaled to 8-bit" in stored.notes
    return found[..., 0]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    expected = np.arange(0, 256, 5).reshape(4, 13)
    deep = saved(PIL.Image.fromarray(RAMP), "PNG")
    with PIL.Image.open(io.BytesIO(deep)) as image:
        assert image.mode == "I;16"
    for data in (deep, tiff(RAMP, "<"), tiff(RAMP, ">")):
        assert (grey_ramp(ingest(data)) == expected).all()


def test_a_tiff_in_which_zero_is_white() -> None:
    assert (grey_ramp(ingest(tiff(RAMP, "<", photometric=0))) == 255 - np.arange(0, 256, 5).reshape(4, 13)).all()


def test_twelve_bits_are_scaled_by_what_they_can_hold() -> None:
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
    stored = ingest(saved(PIL.Image.fromarray(values), "TIFF"))
    assert pixels(stored.data)[0, :, 0].tolist() == expected
    assert note in stored.notes


def test_values_that_are_no_numbers_are_refused() -> None:
    data = saved(PIL.Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF")
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
def test_of_an_animation_the_first_frame_is_stored(kind: str) -> None:
    others = [picture().rotate(180), picture().transpose(PIL.Image.Transpose.FLIP_TOP_BOTTOM)]
    data = saved(picture(), kind, save_all=True, append_images=others)
    stored = ingest(data)
    check_stored(stored, data)
    assert "first frame of an animation or of several pages" in stored.notes


def test_frames_behind_the_first_may_be_broken() -> None:
    data = saved(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)])
    stored = ingest(data[:-30])
    check_stored(stored, data)


def test_a_camera_s_jpeg_with_previews_behind_it_stays_as_it_is() -> None:
    data = saved(picture(), "MPO", save_all=True, append_images=[picture().resize((6, 4))])
    assert ingest(data) == IngestedImage(data, ".jpg", ())


def test_a_colour_profile_of_another_mode_is_not_kept() -> None:
    stored = ingest(saved(picture("CMYK"), "TIFF", icc_profile=b"profile of printing inks"))
    with PIL.Image.open(io.BytesIO(stored.data)) as image:
        assert "icc_profile" not in image.info


@pytest.mark.parametrize(("width", "height"), [(13_378, 13_378), (65_535, 65_535), (2**31 - 1, 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: PIL.Image.Image) -> None:
        raise AssertionError("it is decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert width * height > MAX_PIXELS
    with pytest.raises(ItemError) as refused:
        ingest(png(width, height, 8, 2, b""))
    assert refused.value.rule == "pixel-bomb"


def test_no_bytes_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ItemError, match="empty-image"):
        ingest(b"")
    monkeypatch.setattr("convkit.media.images.MAX_FILE_BYTES", 10)
    with pytest.raises(ItemError, match="has 11 bytes; the limit is 10"):
        ingest(bytes(11))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = saved(picture(), kind)
    with pytest.raises(ItemError, match=r"undecodable-image.*(does not decode|cannot be read as such)"):
        ingest(data[: len(data) // 2])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[PIL.Image.Image]:
    """The images whose pixels were decoded."""
    images: list[PIL.Image.Image] = []
    load = PIL.ImageFile.ImageFile.load

    def watched(image: PIL.ImageFile.ImageFile) -> Any:
        images.append(image)
        return load(image)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", watched)
    return images


@pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0"}, {"icc_profile": b"x"}])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_whole_rgb_file_is_kept_without_decoding(
    kind: str, options: dict[str, Any], decoded: list[PIL.Image.Image]
) -> None:
    data = saved(picture(), kind, **options)
    decoded.clear()
    assert ingest(data).data == data
    assert not decoded


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_whatever_leaves_a_doubt_is_decoded(kind: str, decoded: list[PIL.Image.Image]) -> None:
    whole = saved(picture(), kind)
    behind = whole + bytes(3) if kind == "JPEG" else whole[:-12] + chunk(b"tEXt", b"a\0b") + whole[-12:]
    decoded.clear()
    assert ingest(behind) == IngestedImage(behind, ".jpg" if kind == "JPEG" else ".png", ())
    assert decoded


def test_an_orientation_behind_the_pixels_is_applied() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    whole = saved(picture(), "PNG")
    data = whole[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:]
    stored = ingest(data)
    assert stored.notes == ("EXIF orientation applied",)
    check_stored(stored, data)


def test_one_wrong_bit_of_a_png_is_found() -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ItemError, match=r"undecodable-image.*does not decode"):
        ingest(bytes(data))


def test_a_jpeg_cut_behind_its_thumbnail_is_found() -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "a thumbnail ends here: \xff\xd9"
    data = saved(picture(), "JPEG", exif=exif)
    with pytest.raises(ItemError, match="undecodable-image"):
        ingest(data[: data.index(b"\xff\xdb")] + b"\xff\xd9")


def broken_inside(kind: str) -> bytes:
    """An image whose file is whole, and whose pixels cannot be decoded."""
    if kind == "PNG":
        return png(60, 40, 8, 2, b"\7")  # too few rows, and no such filter
    data = bytearray(saved(picture(), "JPEG"))
    data[data.index(b"\xff\xc4") + 5] = 255  # more codes of one bit than there can be
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_whole_but_does_not_decode_is_left_for_the_validator(tmp_path: Path, kind: str) -> None:
    data = broken_inside(kind)
    stored = ingest(data)
    assert stored.data == data
    path = tmp_path / f"a{stored.suffix}"
    path.write_bytes(stored.data)
    problem = inspect_file(path)
    assert isinstance(problem, ImageProblem)
    assert problem.rule == "undecodable-image"


@pytest.mark.parametrize("orientation", [1, 6])
def test_rows_that_a_tiff_does_not_hold_are_not_made_up(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    whole = saved(picture(), "TIFF", exif=exif)
    path = tmp_path / "a.tif"
    path.write_bytes(whole)
    assert isinstance(inspect_file(path), ImageInfo)
    rows = struct.pack("<HHII", 257, 4, 1, 40)
    assert whole.count(rows) == 1
    path.write_bytes(whole.replace(rows, struct.pack("<HHII", 257, 4, 1, 2_000_000)))
    reason = "has pixels for only 40 of its 2,000,000 rows"
    assert inspect_file(path) == ImageProblem("undecodable-image", f"'a.tif' {reason}")
    with pytest.raises(ItemError, match=reason):
        ingest(path.read_bytes())


def survives(data: bytes) -> None:
    """An `ItemError` with a rule and a line, or an image; only bytes that are kept may fail to decode."""
    try:
        stored = ingest(data)
    except ItemError as error:
        assert error.rule in {"empty-image", "pixel-bomb", "undecodable-image"}
        assert error.reason and "\n" not in error.reason
        return
    try:
        assert pixels(stored.data).shape[2] == 3
    except (OSError, SyntaxError, ValueError):
        assert stored.data == data


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"BM", b"\xff\xd8\xff"])
)
def test_arbitrary_bytes_are_survived(data: bytes, signature: bytes) -> None:
    survives(signature + data)


@pytest.fixture(scope="session")
def small_files(shared_data: Path) -> list[bytes]:
    made: list[Callable[[], bytes]] = [
        lambda: saved(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]),
        lambda: saved(picture("LAB"), "TIFF"),
        lambda: tiff(RAMP, ">"),
        lambda: saved(picture("CMYK"), "JPEG", progressive=True),
        lambda: saved(picture(), "MPO", save_all=True, append_images=[picture()]),
    ]
    found = [path.read_bytes() for path in shared_files(shared_data) if path.stat().st_size < 60_000]
    return [*found, *(make() for make in made)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_are_survived(data: st.DataObject, small_files: list[bytes]) -> None:
    content = bytearray(data.draw(st.sampled_from(small_files)))
    places = st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=FEW)):
        content[place] = value
    survives(bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content))

"""Incomplete, too large and hostile image files are refused, and files are decoded only if needed."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.errors import ItemError
from convkit.media.images import MAX_PIXELS, ImageInfo, ImageProblem, inspect_file
from convkit.media.ingest import IngestedImage, ingest
from tests.media.pictures import RAMP, check_stored, chunk, encoded, picture, pixels, png, shared_files, tiff

FEW = 25


@pytest.mark.parametrize(("width", "height"), [(13_378, 13_378), (65_535, 65_535), (2**31 - 1, 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: PIL.Image.Image) -> None:
        raise AssertionError("it is decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert width * height > MAX_PIXELS
    with pytest.raises(ItemError) as refused:
        ingest(png(width, height, 8, 2, b""))
    assert refused.value.rule == "pixel-bomb"


def test_empty_and_too_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ItemError, match="empty-image"):
        ingest(b"")
    monkeypatch.setattr("convkit.media.images.MAX_FILE_BYTES", 10)
    with pytest.raises(ItemError, match="has 11 bytes; the limit is 10"):
        ingest(bytes(11))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = encoded(picture(), kind)
    with pytest.raises(ItemError, match=r"undecodable-image.*(does not decode|cannot be read as such)"):
        ingest(data[: len(data) // 2])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[PIL.Image.Image]:
    """Record the images whose pixels are decoded."""
    images: list[PIL.Image.Image] = []
    load = PIL.ImageFile.ImageFile.load

    def watched(image: PIL.ImageFile.ImageFile) -> Any:
        images.append(image)
        return load(image)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", watched)
    return images


@pytest.mark.parametrize("options", [{}, {"exif": b"Exif\0\0"}, {"icc_profile": b"x"}])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_complete_rgb_file_is_kept_without_decoding(
    kind: str, options: dict[str, Any], decoded: list[PIL.Image.Image]
) -> None:
    data = encoded(picture(), kind, **options)
    decoded.clear()
    assert ingest(data).data == data
    assert not decoded


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_suspicious_files_are_decoded(kind: str, decoded: list[PIL.Image.Image]) -> None:
    whole = encoded(picture(), kind)
    behind = whole + bytes(3) if kind == "JPEG" else whole[:-12] + chunk(b"tEXt", b"a\0b") + whole[-12:]
    decoded.clear()
    assert ingest(behind) == IngestedImage(behind, ".jpg" if kind == "JPEG" else ".png", ())
    assert decoded


def test_an_orientation_stored_after_the_pixels_is_applied() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    whole = encoded(picture(), "PNG")
    data = whole[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:]
    stored = ingest(data)
    assert stored.notes == ("EXIF orientation applied",)
    check_stored(stored, data)


def test_one_wrong_bit_of_a_png_is_detected() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(ItemError, match=r"undecodable-image.*does not decode"):
        ingest(bytes(data))


def test_a_jpeg_truncated_after_its_thumbnail_is_refused() -> None:
    exif = PIL.Image.Exif()
    exif[0x010E] = "a thumbnail ends here: \xff\xd9"
    data = encoded(picture(), "JPEG", exif=exif)
    with pytest.raises(ItemError, match="undecodable-image"):
        ingest(data[: data.index(b"\xff\xdb")] + b"\xff\xd9")


def broken_inside(kind: str) -> bytes:
    """Make a complete file whose pixels cannot be decoded."""
    if kind == "PNG":
        return png(60, 40, 8, 2, b"\7")  # too few rows, and an unknown filter
    data = bytearray(encoded(picture(), "JPEG"))
    data[data.index(b"\xff\xc4") + 5] = 255  # more one-bit codes than possible
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_complete_but_undecodable_file_is_kept_for_the_validator(tmp_path: Path, kind: str) -> None:
    data = broken_inside(kind)
    stored = ingest(data)
    assert stored.data == data
    path = tmp_path / f"a{stored.suffix}"
    path.write_bytes(stored.data)
    problem = inspect_file(path)
    assert isinstance(problem, ImageProblem)
    assert problem.rule == "undecodable-image"


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_with_missing_rows_is_refused(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    whole = encoded(picture(), "TIFF", exif=exif)
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


def check_handled(data: bytes) -> None:
    """Check for an `ItemError` with a rule and one line, or an image; only unchanged files may fail to decode."""
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
def test_arbitrary_bytes_are_handled(data: bytes, signature: bytes) -> None:
    check_handled(signature + data)


@pytest.fixture(scope="session")
def small_files(shared_data: Path) -> list[bytes]:
    made: list[Callable[[], bytes]] = [
        lambda: encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(180)]),
        lambda: encoded(picture("LAB"), "TIFF"),
        lambda: tiff(RAMP, ">"),
        lambda: encoded(picture("CMYK"), "JPEG", progressive=True),
        lambda: encoded(picture(), "MPO", save_all=True, append_images=[picture()]),
    ]
    found = [path.read_bytes() for path in shared_files(shared_data) if path.stat().st_size < 60_000]
    return [*found, *(make() for make in made)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_are_handled(data: st.DataObject, small_files: list[bytes]) -> None:
    content = bytearray(data.draw(st.sampled_from(small_files)))
    places = st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=FEW)):
        content[place] = value
    check_handled(bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content))

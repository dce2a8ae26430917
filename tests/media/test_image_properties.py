"""Image properties are computed for every pixel format, and never raise."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.media import image_properties as properties
from convkit.media.images import ImageInfo, ImageProblem, inspect_file
from tests.fixtures.invalid_media import apng, cmyk_tiff

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")


def picture(width: int = 96, height: int = 64, seed: int = 0) -> PIL.Image.Image:
    """Make soft blobs, as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)


def again(image: PIL.Image.Image, kind: str, **options: Any) -> PIL.Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return PIL.Image.open(buffer)


def bits(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_hash_survives_scaling_and_separates_images(seed: int) -> None:
    shape = properties.difference_hash(picture(seed=seed))
    assert len(shape) == 64
    assert bits(shape, properties.difference_hash(again(picture(seed=seed), "JPEG", quality=60))) <= 7
    assert bits(shape, properties.difference_hash(picture(seed=seed).resize((192, 128)))) <= 7
    assert bits(shape, properties.difference_hash(picture(seed=seed + 5))) > 30


def test_images_with_few_brightness_steps_have_no_difference_hash() -> None:
    plain = PIL.Image.new("RGB", (64, 64), (200, 210, 220))
    plain.paste((10, 20, 30), (20, 20, 40, 40))
    assert properties.difference_hash(plain) == ""


def test_equal_pixels_have_one_digest_in_any_format(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture()
    expected = properties.pixel_digest(image)
    assert properties.pixel_digest(again(image, "BMP")) == expected
    assert properties.pixel_digest(again(image.convert("L"), "PNG")) == properties.pixel_digest(
        image.convert("L").convert("RGB")
    )
    assert properties.pixel_digest(image.resize((64, 96))) != expected
    assert properties.pixel_digest(picture(seed=1)) != expected
    assert properties.pixel_digest(image.transpose(PIL.Image.Transpose.ROTATE_180)) != expected
    monkeypatch.setattr(properties, "_STRIP_PIXELS", 1000)
    assert properties.pixel_digest(image) == expected


@pytest.mark.parametrize("mode", MODES)
def test_properties_are_computed_for_every_pixel_format(mode: str) -> None:
    image = PIL.Image.new(mode, (20, 10))
    assert properties.is_blank(image)
    assert properties.pixel_digest(image) == properties.pixel_digest(image.copy())
    assert properties.difference_hash(image) == ""


def test_one_pixel_is_not_blank() -> None:
    image = PIL.Image.new("RGB", (20, 10), (1, 2, 3))
    image.putpixel((19, 9), (1, 2, 4))
    assert not properties.is_blank(image)


@pytest.mark.parametrize(
    ("kind", "frames", "expected"), [("GIF", 2, True), ("GIF", 1, False), ("TIFF", 2, True), ("WEBP", 2, True)]
)
def test_more_frames_are_detected(tmp_path: Path, kind: str, frames: int, expected: bool) -> None:
    first, *others = (picture(seed=seed) for seed in range(frames))
    path = tmp_path / "a"
    first.save(path, kind, save_all=True, append_images=others)
    for decode in (True, False):
        assert isinstance(found := inspect_file(path, decode), ImageInfo)
        assert found.animated == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_bytes_raise_no_error(tmp_path: Path, data: st.DataObject) -> None:
    kinds = [again(picture(24, 16), kind).fp.getvalue() for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]  # type: ignore[attr-defined]
    content = bytearray(data.draw(st.sampled_from([*kinds, apng(), cmyk_tiff()]) | st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for decode in (True, False):
        found = inspect_file(path, decode)
        assert isinstance(found, ImageProblem) or (found.width > 0 and found.orientation in range(1, 9))

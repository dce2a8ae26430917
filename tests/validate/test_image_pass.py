"""Damaged and hostile image files are findings, never crashes."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from convkit.media import images
from convkit.media.images import ImageInfo, ImageProblem, inspect_dataset_image, inspect_file
from tests.fixtures.builders import png

NASTY = {
    "16bit.cropped.tif": "TIFF 64x64",
    "PILLOW_LICENSE.txt": "undecodable-image",
    "broken.png": "undecodable-image",
    "broken_data_stream.png": "undecodable-image",
    "decompression_bomb.gif": "pixel-bomb",
    "decompression_bomb.ico": "undecodable-image",
    "decompression_bomb_extents.gif": "GIF 100x100",
    "exif_typeerror.jpg": "JPEG 800x531",
    "hopper.jpg": "JPEG 128x128",
    "hopper_bad_exif.jpg": "JPEG 500x500",
    "hopper_gray.jpg": "JPEG 128x128",
    "hopper_orientation_6.jpg": "JPEG 128x128",
    "hopper_orientation_8.jpg": "JPEG 128x128",
    "i_trns.png": "PNG 64x64",
    "invalid-exif.jpg": "JPEG 200x200",
    "iss634.gif": "GIF 245x245",
    "iss634.webp": "WEBP 245x245",
    "orientation_rectangle.jpg": "JPEG 2x1",
    "pil_sample_cmyk.jpg": "JPEG 100x100",
    "rgb_trns.png": "PNG 64x64",
    "shortfile.bmp": "undecodable-image",
    "transparent.png": "PNG 200x150",
    "truncated_end_chunk.png": "undecodable-image",
    "truncated_image.png": "undecodable-image",
    "truncated_jpeg.jpg": "undecodable-image",
}


@pytest.mark.parametrize(("name", "expected"), NASTY.items())
def test_the_test_images_of_pillow_have_the_expected_findings(shared_data: Path, name: str, expected: str) -> None:
    result = inspect_dataset_image(shared_data / "data" / "nasty", True, name)
    if isinstance(result, ImageInfo):
        assert f"{result.format} {result.width}x{result.height}" == expected
    else:
        assert result.rule == expected
        assert name in result.message and "\n" not in result.message
    assert pickle.loads(pickle.dumps(result)) == result


def test_the_properties_of_a_valid_image_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 2))
    result = inspect_file(path)
    assert isinstance(result, ImageInfo)
    assert (result.bytes, result.width, result.height, result.format) == (path.stat().st_size, 3, 2, "PNG")
    assert (result.mode, result.orientation, result.transparent, result.animated) == ("L", 1, False, False)
    assert (result.blank, result.pixel_digest != 0, result.difference_hash) == (False, True, "")
    assert result.sha256 == hashlib.sha256(png(3, 2)).hexdigest()
    assert inspect_file(path, decode=False) == result._replace(sha256=None, pixel_digest=0)


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/zero"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert isinstance(problem := inspect_file(tmp_path / name), ImageProblem)
    assert problem.rule == "not-a-file"


def test_links_must_stay_inside_the_images_folder(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (tmp_path / "images").symlink_to("real")  # images/ itself may lie elsewhere
    (folder / "sub" / "inside.png").symlink_to("../a.png")
    (folder / "roundabout.png").symlink_to(tmp_path / "images" / "a.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up.png").symlink_to("../secret.png")
    (folder / "near").symlink_to("../real-too")  # shares the folder's name as text
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "real-too").mkdir()
    (tmp_path / "real-too" / "a.png").write_bytes(png())

    def rule(relative: str) -> str | None:
        result = inspect_dataset_image(tmp_path / "images", True, relative)
        return result.rule if isinstance(result, ImageProblem) else None

    assert rule("sub/inside.png") is None
    assert rule("roundabout.png") is None
    assert rule("loop.png") == "missing-image"
    assert rule("up.png") == "outside-images"
    assert rule("near/a.png") == "outside-images"
    assert rule("x" * 1000) == "missing-image"


def test_a_file_above_the_size_limit_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    assert inspect_file(path) == ImageProblem(
        "undecodable-image", "'a.png' has 536,870,913 bytes; the limit is 536,870,912"
    )


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep\ndeep"), SystemError("x" * 999), KeyError(1)])
def test_any_exception_of_a_decoder_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def explode(self: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", explode)
    path = tmp_path / "a.png"
    path.write_bytes(png())
    assert isinstance(problem := inspect_file(path), ImageProblem)
    assert problem.rule == "undecodable-image"
    assert "\n" not in problem.message and len(problem.message) < 300


def test_the_pixel_limit_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(4, 4))
    monkeypatch.setattr(images, "MAX_PIXELS", 16)
    assert isinstance(inspect_file(path), ImageInfo)
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    assert inspect_file(path) == ImageProblem("pixel-bomb", "'a.png' has 4 x 4 pixels; the limit is 15")

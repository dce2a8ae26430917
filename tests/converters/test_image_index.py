"""Images are found by the end of their path."""

import os
from pathlib import Path

import pytest

from convkit.converters.image_index import ImageIndex, image_stem, list_files
from convkit.errors import SourceError


def touch_files(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"12")
    return root


@pytest.mark.parametrize(
    ("there", "wanted", "found"),
    [
        (["documents/x.png"], "documents/x.png", "documents/x.png"),
        (["flat/x.png"], "documents/x.png", "flat/x.png"),
        (["a/documents/x.png", "documents.old/x.png"], "documents/x.png", "a/documents/x.png"),
        (["a/7/x.png", "b/7/x.png", "b/8/x.png"], "b/7/x.png", "b/7/x.png"),
        (["z/b/7/x.jpg", "a/7/x.png"], "b/7/x.png", "z/b/7/x.jpg"),
        (["a/x.jpg", "b/x.png"], "x.png", "b/x.png"),
        (["a/x.jpg", "b/x.PNG"], "x.png", "b/x.PNG"),
        (["b/x.jpg", "a/x.webp"], "x.png", "a/x.webp"),
        (["b/x.png", "a/x.png"], "x.png", "a/x.png"),
        (["v1.0_2.png", "v1.png"], "v1.0_2.png", "v1.0_2.png"),
        (["v1.0.png"], "v1.0", "v1.0.png"),
        (["x.png.txt", ".x.png", ".hidden/x.png", "x.txt"], "x.png", None),
        (["x.png"], "../x.png", "x.png"),
        (["x.png"], "", None),
        (["x.png"], "x.png/", "x.png"),
    ],
)
def test_the_best_match_from_the_end_of_the_path_is_found(
    tmp_path: Path, there: list[str], wanted: str, found: str | None
) -> None:
    assert ImageIndex(touch_files(tmp_path, *there)).find(wanted) == found


def test_the_folder_is_scanned_once_and_on_first_use(tmp_path: Path) -> None:
    index = ImageIndex(tmp_path / "later")
    touch_files(tmp_path / "later", "x.png")
    assert index.find("x.png") == "x.png"
    assert index.size("x.png") == 2
    touch_files(tmp_path / "later", "y.png")
    assert index.find("y.png") is None


def test_links_are_followed_without_endless_loops(tmp_path: Path) -> None:
    touch_files(tmp_path, "real/x.png", "root/y.png")
    (tmp_path / "root/link").symlink_to(tmp_path / "real")
    (tmp_path / "root/back").symlink_to(tmp_path / "root")
    (tmp_path / "root/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list(list_files(tmp_path / "root")) == ["link/x.png", "y.png"]


def test_folder_names_that_are_not_utf8_are_escaped_in_errors(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    (tmp_path / os.fsdecode(b"\xff") / "x.png").write_bytes(b"1")
    assert ImageIndex(tmp_path).find("documents/x.png") == os.fsdecode(b"\xff/x.png")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere cannot be read"):
        ImageIndex(tmp_path / "nowhere").find("x.png")


def test_a_single_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"val.json is a single file. Pass the folder"):
        list(list_files(touch_files(tmp_path, "val.json") / "val.json"))


def test_the_stem_excludes_image_suffixes_only() -> None:
    assert [image_stem(p) for p in ("a/x.JPeG", "x.1.png", "x.1", "a/x.tar")] == ["x", "x.1", "x.1", "x.tar"]

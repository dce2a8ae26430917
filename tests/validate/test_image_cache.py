"""Results of unchanged images come from the cache, and a damaged cache never changes the findings."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convkit import layout
from convkit.media import images
from convkit.media.cache import MediaCache
from convkit.profiles import TargetModel
from convkit.validate.run import validate
from tests.fixtures.builders import lines, png, row
from tests.validate.helpers import codes, report_of, write_images


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are opened, in an empty cache that takes files as they are."""
    monkeypatch.setattr("convkit.media.cache.MIN_FILE_AGE_NS", 0)
    names: list[str] = []
    inspect_file = images.inspect_file

    def watch(path: str, decode: bool = True, name: str | None = None) -> Any:
        names.append(Path(path).name)
        return inspect_file(path, decode, name)

    monkeypatch.setattr(images, "inspect_file", watch)
    return names


def test_unchanged_images_are_not_opened_again(tmp_path: Path, opened: list[str]) -> None:
    path = write_images(tmp_path)
    first = report_of(path)
    assert len(opened) == 5
    assert report_of(path) == first and report_of(path, media="header") == first
    assert len(opened) == 5


@pytest.mark.parametrize("media", ["decode", "header"])
def test_a_model_does_not_open_images_again(tmp_path: Path, opened: list[str], media: str) -> None:
    path = write_images(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    target = TargetModel.from_options("qwen2-vl", max_length=3)
    found = [f for f in report_of(path, media=media, target=target).findings if f.code in ("CK204", "CK401")]
    assert [(f.code, f.line) for f in found] == [(("CK204" if line == 4 else "CK401"), line) for line in range(1, 6)]
    assert sorted(opened) == [f"{number}.png" for number in range(5)]


def test_a_cached_header_does_not_count_as_a_decoded_image(tmp_path: Path, opened: list[str]) -> None:
    path = write_images(tmp_path, 1)
    (tmp_path / "images" / "0.png").write_bytes(png(20, 20)[:200])
    assert codes(report_of(path, media="header")) == []
    assert codes(report_of(path)) == ["CK204"]


def test_a_changed_byte_is_found_even_if_the_mtime_is_restored(tmp_path: Path, opened: list[str]) -> None:
    path = write_images(tmp_path)
    report_of(path)
    image = tmp_path / "images" / "2.png"
    before = image.stat()
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    opened.clear()
    assert codes(report_of(path)) == ["CK204"]
    assert opened == ["2.png"]


def test_a_file_that_has_just_changed_is_not_cached(tmp_path: Path, opened: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("convkit.media.cache.MIN_FILE_AGE_NS", 3600 * 10**9)
    path = write_images(tmp_path)
    report_of(path), report_of(path)
    assert len(opened) == 10


def test_a_folder_replaced_by_a_link_to_the_outside_is_found(tmp_path: Path, opened: list[str]) -> None:
    path = write_images(tmp_path)
    inside = tmp_path / "images" / "sub"
    inside.mkdir()
    (inside / "a.png").write_bytes(png())
    path.write_bytes(lines(row("1", ["sub/a.png"])))
    assert codes(report_of(path)) == []
    shutil.move(inside, tmp_path / "sub")
    inside.symlink_to("../sub")
    assert codes(report_of(path)) == ["CK203"]


def not_a_database(path: Path) -> None:
    path.write_bytes(b"no database")


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def wrong_types(path: Path) -> None:
    """Values of other kinds, as a stranger may write them."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE image SET seen = '[1, {}, null]' WHERE path < '2'")
        database.execute("UPDATE image SET seen = x'ff', size = 'x' WHERE path >= '2'")
    database.close()


def other_table(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE image; CREATE TABLE image (x)")
    database.close()


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tag SET tag = 'other'")
    database.close()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [not_a_database, truncated, wrong_types, other_table, other_version, folder_instead])
def test_a_damaged_cache_is_ignored(tmp_path: Path, opened: list[str], damage: Callable[[Path], None]) -> None:
    path = write_images(tmp_path)
    report = report_of(path)
    cache = layout.media_cache(tmp_path / "images")
    damage(cache)
    assert report_of(path) == report
    assert len(opened) == 10


def test_validation_works_if_the_cache_cannot_be_created(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert codes(report_of(write_images(tmp_path))) == []


def test_an_image_worker_imports_no_heavy_package() -> None:
    """Its start is most of what the headers of some thousand images cost."""
    modules = "sys, convkit.utils.pool, convkit.media.images"
    code = f"import {modules}; print({{'pydantic', 'numpy', 'PIL'}} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    assert images.inspect_image.__module__ == "convkit.media.images"


def test_many_cached_images_after_a_changed_one_keep_their_order(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.validate.image_pass._MAX_PENDING", 3)
    path = write_images(tmp_path, 40)
    first = report_of(path)
    (tmp_path / "images" / "0.png").write_bytes(png(17, 17))
    seen: list[int | None] = []
    monkeypatch.setattr("convkit.receipt.MediaDigest.add", lambda self, path, size, sha: seen.append(int(path[:-4])))
    assert validate([path], workers=1).report == first
    assert seen == list(range(40))


def test_a_cache_can_be_closed_twice(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path / "c.sqlite")
    cache.close()
    cache.close()
    assert cache.get(["a"]) == {}

"""Archives of every format are detected and unpacked; other files are refused."""

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress
from tests.sources.archives import (
    ALL,
    AVI,
    OLD,
    TAR_MODES,
    add_member,
    every_kind,
    make_archive,
    make_zip,
    read_files,
    unpack_error,
)


@every_kind
@pytest.mark.parametrize("name", ["data", "data.zip", "data.tar"])
def test_the_format_is_detected_from_the_content(kind: str, name: str, tmp_path: Path, target: Path) -> None:
    files = {"a/b/one.avi": b"1" * 3_000_000, "two.AVI": b"", "a/notes.txt": b"no"}
    assert unpack(make_archive(kind, tmp_path / name, files), target, AVI, ignore_progress) == ()
    assert read_files(target) == {"a/b/one.avi": b"1" * 3_000_000, "two.AVI": b""}


@every_kind
def test_without_suffixes_every_file_is_unpacked(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"a/README": b"x", "b.txt": b"y"}
    unpack(make_archive(kind, tmp_path / "a", files), target, ALL, ignore_progress)
    assert read_files(target) == files


@every_kind
def test_metadata_files_of_macos_are_ignored(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"v/._a.avi": b"junk", "__MACOSX/v/a.avi": b"junk", "v/a.avi": b"film"}
    assert unpack(make_archive(kind, tmp_path / "a", files), target, AVI, ignore_progress) == ()
    assert read_files(target) == {"v/a.avi": b"film"}


@every_kind
def test_unicode_and_long_names_are_unpacked(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"видео/Žluť 映画.avi": b"x", "long/" * 60 + "x.avi": b"y"}
    assert unpack(make_archive(kind, tmp_path / "a", files), target, AVI, ignore_progress) == ()
    assert read_files(target) == files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_header_format_is_read(format: int, tmp_path: Path, target: Path) -> None:
    files = {"d" * 90 + "/" + "f" * 90 + ".avi": b"x" * 1000, "b.avi": b"y"}
    with tarfile.open(tmp_path / "a.tar", "w", format=format, pax_headers={"comment": "for all"}) as tar:
        for name, content in files.items():
            add_member(tar, name, content)
    unpack(tmp_path / "a.tar", target, AVI, ignore_progress)
    assert read_files(target) == files


def test_folders_of_a_tar_are_created_for_files_only(tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, "empty", type=tarfile.DIRTYPE, mode=0)
        add_member(tar, "full", type=tarfile.DIRTYPE, mode=0)
        add_member(tar, "./full/a.avi", b"x")
    assert unpack(tmp_path / "a.tar", target, AVI, ignore_progress) == ()
    assert [p.name for p in target.iterdir()] == ["full"]
    assert read_files(target) == {"full/a.avi": b"x"}


def test_folders_of_a_zip_are_created_for_files_only(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"empty.avi/": b"", "/": b"", "full/a.avi": b"x"})
    assert unpack(path, target, AVI, ignore_progress) == ()
    assert [p.name for p in target.iterdir()] == ["full"]


@every_kind
def test_files_have_a_fixed_mode_independent_of_the_archive(kind: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            info = zipfile.ZipInfo("a.avi")
            info.external_attr = (stat.S_IFREG | 0o4777) << 16
            file.writestr(info, b"x")
    else:
        with tarfile.open(path, TAR_MODES[kind]) as tar:  # type: ignore[call-overload]
            add_member(tar, "a.avi", b"x", mode=0o4777, mtime=OLD, uid=12345)
    before = os.umask(0o022)
    try:
        unpack(path, target, AVI, ignore_progress)
    finally:
        os.umask(before)
    status = (target / "a.avi").stat()
    assert f"{stat.S_IMODE(status.st_mode):o}" == "644"
    assert status.st_mtime > OLD
    assert status.st_uid == os.getuid()


@every_kind
def test_progress_is_monotonic_and_ends_at_the_total(kind: str, tmp_path: Path, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = make_archive(kind, tmp_path / "a", {f"{i}.avi": os.urandom(100_000) for i in range(30)})
    unpack(path, target, AVI, lambda done, total: seen.append((done, total)))
    total = 3_000_000 if kind == "zip" else path.stat().st_size
    assert {t for _, t in seen} == {total}
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert len({d for d, _ in seen}) > 3, "bzip2 goes by blocks of nearly a megabyte"
    assert seen[-1][0] == total


@every_kind
def test_an_archive_without_wanted_files_is_refused_with_the_suffixes(kind: str, tmp_path: Path, target: Path) -> None:
    path = make_archive(kind, tmp_path / "a", {"a.txt": b"x", "../a.avi": b"x"})
    error = unpack_error(path, target, frozenset({".mp4", ".avi"}))
    assert "contains no file with the suffix .avi or .mp4 that can be unpacked" in error
    assert "1 members were refused, the first because its name leads upwards" in error


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_empty_archive_is_refused(kind: str, tmp_path: Path, target: Path) -> None:
    assert "contains no file that can be unpacked" in unpack_error(make_archive(kind, tmp_path / "a", {}), target)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tar", b"", "it is empty"),
        ("a.zip", b"just text", "is not an archive that convkit can read (tar, tar.gz, tar.bz2, tar.xz or zip)"),
        ("a.zip", b"\n<!DOCTYPE html><html>", "it is a web page"),
        ("a.tar.gz", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00", "Run: unrar x a.rar, and pass the folder to --source."),
        ("a.zip", b"Rar!\x1a\x07\x00", "Run: unrar x a.zip, and pass"),
        ("a.rar", b"unknown", "Run: unrar x a.rar, and pass"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "Run: 7z x a.7z, and pass the folder to --source."),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", "Run: tar --zstd -xf a.tar.zst, and pass"),
    ],
)
def test_other_files_are_refused_with_a_remedy(
    name: str, content: bytes, expected: str, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert expected in unpack_error(path, target)


def test_a_tar_without_a_magic_number_is_recognized(tmp_path: Path, target: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.avi").tobuf(tarfile.USTAR_FORMAT))
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a").write_bytes(bytes(header) + bytes(1024))
    unpack(tmp_path / "a", target, AVI, ignore_progress)
    assert read_files(target) == {"a.avi": b""}

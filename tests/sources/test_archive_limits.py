"""Limits on bytes, members, headers and memory hold while an archive is unpacked."""

import gzip
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from convkit.sources import members
from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress
from tests.sources.archives import AVI, add_member, every_kind, make_archive, make_tar, make_zip, unpack_error


@every_kind
def test_a_bomb_is_stopped_by_the_bytes_that_are_read(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 5_000_000)
    monkeypatch.setattr(members, "MAX_TOTAL_RATIO", 0)
    path = make_archive(kind, tmp_path / "a", {f"{i}.avi": bytes(1_000_000) for i in range(6)})
    assert "unpacks to more than 5,000,000 bytes" in unpack_error(path, target)
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 6_000_000)
    unpack(path, target, AVI, ignore_progress)


def test_a_larger_archive_may_unpack_to_more_bytes(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 0)
    path = make_tar(tmp_path / "a", {"a.avi": bytes(1_000_000)}, "w:gz")
    assert "unpacks to more than" in unpack_error(path, target)
    monkeypatch.setattr(members, "MAX_TOTAL_RATIO", 2000)
    unpack(path, target, AVI, ignore_progress)


@every_kind
def test_the_size_of_one_member_is_limited(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 999)
    path = make_archive(kind, tmp_path / "a", {"small.avi": bytes(999), "large.avi": bytes(1000)})
    assert "a member of more than 999 bytes, large.avi," in unpack_error(path, target)


@every_kind
def test_the_number_of_members_of_any_kind_is_limited(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    path = make_archive(kind, tmp_path / "a", {f"{i}.txt": b"" for i in range(4)})
    assert "more than 3 members" in unpack_error(path, target, AVI)


def test_the_number_of_refused_members_is_limited(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_REFUSED", 2)
    path = make_tar(tmp_path / "a", {f"../{i}.avi": b"" for i in range(3)})
    assert "more than 2 members that cannot be unpacked" in unpack_error(path, target, AVI)


def test_a_zip_larger_than_the_free_space_fails_at_once(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.avi": bytes(1000), "b.txt": bytes(10_000)})
    usage = type("usage", (), {"free": 999})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "takes 1,000 bytes, but the disk of" in unpack_error(path, target, AVI)


def test_the_size_of_a_header_is_limited(tmp_path: Path, target: Path) -> None:
    """Write a long-name header of 200 MB of zeros, which takes 200 kB in a compressed archive."""
    path = tmp_path / "a.tar.gz"
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 200_000_000
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(200):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    error = unpack_error(path, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a header declares an implausible size" in error
    assert peak < 20_000_000


def test_nested_headers_are_an_error(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 5000)
    assert "is damaged at its beginning" in unpack_error(tmp_path / "a.tar", target)


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path, target: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(count):
                records = {f"key{number}": "x" * 1000}
                tar.fileobj.write(tarfile.TarInfo.create_pax_global_header(records))
                tar.fileobj.write(tarfile.TarInfo(f"{number}.txt").tobuf())
            add_member(tar, "a.avi", b"x")
        tracemalloc.start()
        unpack(path, tmp_path / str(count) / "source", AVI, ignore_progress)
        _, bytes_at_peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_at_peak

    peak(10)
    assert peak(3000) < peak(300) + 100_000

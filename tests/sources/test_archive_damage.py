"""Damaged archives are reported with the place of the damage, and leave nothing behind."""

import functools
import gzip
import os
import struct
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.errors import SourceError
from convkit.sources import members
from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress
from tests.sources.archives import (
    ALL,
    AVI,
    TAR_MODES,
    add_member,
    make_archive,
    make_tar,
    make_zip,
    replace_bytes,
    unpack_error,
)


@pytest.mark.parametrize("kind", TAR_MODES)
@pytest.mark.parametrize("part", [0.05, 0.55, 0.95])
def test_a_truncated_tar_is_damaged(kind: str, part: float, tmp_path: Path, target: Path) -> None:
    path = make_archive(kind, tmp_path / "a", {f"{i}.avi": os.urandom(20_000) for i in range(10)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    error = unpack_error(path, target)
    assert "is damaged a" in error
    assert "download it again" in error


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_the_error_for_a_truncated_tar_names_the_last_member(kind: str, tmp_path: Path, target: Path) -> None:
    path = make_archive(kind, tmp_path / "a", {f"{i}.avi": os.urandom(100_000) for i in range(10)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 55 // 100])
    assert "damaged at or after the member 5.avi (byte 50" in unpack_error(path, target)


def test_a_tar_truncated_between_members_is_damaged(tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "a", {"a.avi": bytes(512), "b.avi": bytes(512)})
    path.write_bytes(path.read_bytes()[:1024])
    error = unpack_error(path, target)
    assert "at or after the member a.avi" in error
    assert "ends without an end mark" in error


def test_a_damaged_header_is_not_taken_as_the_end(tmp_path: Path, target: Path) -> None:
    path = replace_bytes(make_tar(tmp_path / "a", {"a.avi": b"x", "bb.avi": b"y", "c.avi": b"z"}), b"bb.avi", b"bc.avi")
    error = unpack_error(path, target)
    assert "after the member a.avi (byte 512 when unpacked): bad checksum" in error


@pytest.mark.parametrize("size", ["-5000", "-1536", "9" * 30], ids=["back", "back to itself", "beyond"])
def test_an_implausible_member_size_is_damage(
    size: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 1000)
    with tarfile.open(tmp_path / "a", "w", format=tarfile.PAX_FORMAT) as tar:
        add_member(tar, "a.txt", b"x" * 9000)
        add_member(tar, "b.txt", b"x", pax_headers={"size": size})
        add_member(tar, "c.avi", b"x")
    assert "is damaged at or after the member b.txt" in unpack_error(tmp_path / "a", target, AVI)


def test_a_negative_size_in_a_header_is_damage(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("a.avi")
    header.size = -512
    (tmp_path / "a").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "negative size" in unpack_error(tmp_path / "a", target)


def test_damaged_gzip_data_is_detected(tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "a", {"a.avi": os.urandom(50_000)}, "w:gz")
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    assert "is damaged a" in unpack_error(path, target)


def test_damaged_zip_data_names_the_member(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a", {"a.avi": bytes(range(256)) * 4000})
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    assert "is damaged at the member a.avi: Error -3 while decompressing" in unpack_error(path, target)


def test_invalid_deflate_data_is_damage(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 100)
    assert "Error -3 while decompressing data" in unpack_error(path, target)


def test_an_invalid_utf8_name_in_a_zip_is_damage(tmp_path: Path, target: Path) -> None:
    path = replace_bytes(make_zip(tmp_path / "a", {"é.avi": b"x"}), "é".encode(), b"\xff\xff")
    assert "damaged in its list of members: 'utf-8' codec" in unpack_error(path, target)


def test_data_after_the_end_mark_is_an_error(tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "a", {"a.avi": b"x"})
    path.write_bytes(path.read_bytes() + make_tar(tmp_path / "b", {"b.avi": b"y"}).read_bytes())
    assert "after its end mark: more data follows" in unpack_error(path, target)


def test_a_wrong_gzip_checksum_after_the_tar_end_is_detected(tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "a", {"a.avi": b"x"}, "w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "CRC check failed" in unpack_error(path, target)


def test_a_wrong_checksum_in_a_zip_names_the_member(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a", {"v/a.avi": b"hello world"}, zipfile.ZIP_STORED)
    error = unpack_error(replace_bytes(path, b"hello", b"hallo"), target)
    assert "damaged at the member v/a.avi: Bad CRC-32" in error


def test_a_truncated_zip_is_damaged(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a", {"a.avi": os.urandom(10_000)})
    path.write_bytes(path.read_bytes()[:5000])
    assert "damaged in its list of members" in unpack_error(path, target)


def test_an_unsupported_zip_method_is_reported_with_a_command(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.avi": b"x"})
    content = bytearray(path.read_bytes())
    for mark, offset in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)]:
        struct.pack_into("<H", content, content.index(mark) + offset, 9)
    path.write_bytes(content)
    error = unpack_error(path, target)
    assert "compression method" in error
    assert "7z x a.zip" in error


def test_a_gzip_file_without_a_tar_is_refused(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "labels.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}' * 1000))
    assert "where the first header of a tar archive should be" in unpack_error(path, target)


@functools.cache
def whole_archive(kind: str) -> bytes:
    """Return one archive per test run: its bytes contain the time, and positions to alter are drawn from them."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = {"d/é.avi": b"abc" * 500, "x" * 120 + ".avi": b"", "../c.avi": b"z"}
        return make_archive(kind, Path(folder, "a"), members).read_bytes()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from([*TAR_MODES, "zip"]), data=st.data())
def test_altered_bytes_raise_a_source_error_or_have_no_effect(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        content = bytearray(whole_archive(kind))
        # Most of a plain tar archive is zeros, so only the other bytes are altered.
        places = [i for i, byte in enumerate(content) if byte]
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            unpack(path, Path(folder, "work", "source"), ALL, ignore_progress)
        except SourceError:
            assert not Path(folder, "work", "source").exists()

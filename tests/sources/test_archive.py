"""Archives, ordinary and hostile."""

import contextlib
import errno
import functools
import gzip
import io
import json
import os
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.errors import SourceError
from convkit.sources import RefusedMember, archive, members
from convkit.sources.archive import unpack

AVI = frozenset({".avi"})
ALL: frozenset[str] = frozenset()
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
OLD = 5


def ignore(done: int, total: int | None) -> None:
    """No progress is wanted."""


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            add(tar, name, content)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def zip_of(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make(kind: str, path: Path, files: dict[str, bytes]) -> Path:
    return zip_of(path, files) if kind == "zip" else tar_of(path, files, TAR_MODES[kind])


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a folder that is not itself a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if not p.is_dir()}


def refusals(refused: tuple[RefusedMember, ...]) -> list[tuple[str, str]]:
    return [(r.address, r.rule) for r in refused]


def error_of(path: Path, target: Path, suffixes: frozenset[str] = ALL) -> str:
    with pytest.raises(SourceError) as caught:
        unpack(path, target, suffixes, ignore)
    assert not target.exists()
    assert not target.with_name("source.tmp").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "work" / "source"


kinds = pytest.mark.parametrize("kind", [*TAR_MODES, "zip"])


# What is unpacked.


@kinds
@pytest.mark.parametrize("name", ["data", "data.zip", "data.tar"])
def test_every_format_is_told_by_its_content(kind: str, name: str, tmp_path: Path, target: Path) -> None:
    files = {"a/b/one.avi": b"1" * 3_000_000, "two.AVI": b"", "a/notes.txt": b"no"}
    assert unpack(make(kind, tmp_path / name, files), target, AVI, ignore) == ()
    assert tree(target) == {"a/b/one.avi": b"1" * 3_000_000, "two.AVI": b""}


@kinds
def test_no_suffixes_means_every_file(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"a/README": b"x", "b.txt": b"y"}
    unpack(make(kind, tmp_path / "a", files), target, ALL, ignore)
    assert tree(target) == files


@kinds
def test_what_macos_adds_is_ignored(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"v/._a.avi": b"junk", "__MACOSX/v/a.avi": b"junk", "v/a.avi": b"film"}
    assert unpack(make(kind, tmp_path / "a", files), target, AVI, ignore) == ()
    assert tree(target) == {"v/a.avi": b"film"}


@kinds
def test_names_may_be_in_any_language(kind: str, tmp_path: Path, target: Path) -> None:
    files = {"видео/Žluť 映画.avi": b"x", "long/" * 60 + "x.avi": b"y"}
    assert unpack(make(kind, tmp_path / "a", files), target, AVI, ignore) == ()
    assert tree(target) == files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_header(format: int, tmp_path: Path, target: Path) -> None:
    files = {"d" * 90 + "/" + "f" * 90 + ".avi": b"x" * 1000, "b.avi": b"y"}
    with tarfile.open(tmp_path / "a.tar", "w", format=format, pax_headers={"comment": "for all"}) as tar:
        for name, content in files.items():
            add(tar, name, content)
    unpack(tmp_path / "a.tar", target, AVI, ignore)
    assert tree(target) == files


def test_folders_of_a_tar_are_made_only_for_files(tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "empty", type=tarfile.DIRTYPE, mode=0)
        add(tar, "full", type=tarfile.DIRTYPE, mode=0)
        add(tar, "./full/a.avi", b"x")
    assert unpack(tmp_path / "a.tar", target, AVI, ignore) == ()
    assert [p.name for p in target.iterdir()] == ["full"]
    assert tree(target) == {"full/a.avi": b"x"}


def test_folders_of_a_zip_are_made_only_for_files(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"empty.avi/": b"", "/": b"", "full/a.avi": b"x"})
    assert unpack(path, target, AVI, ignore) == ()
    assert [p.name for p in target.iterdir()] == ["full"]


@kinds
def test_files_have_a_fixed_mode_whatever_the_archive_says(kind: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            info = zipfile.ZipInfo("a.avi")
            info.external_attr = (stat.S_IFREG | 0o4777) << 16
            file.writestr(info, b"x")
    else:
        with tarfile.open(path, TAR_MODES[kind]) as tar:  # type: ignore[call-overload]
            add(tar, "a.avi", b"x", mode=0o4777, mtime=OLD, uid=12345)
    before = os.umask(0o022)
    try:
        unpack(path, target, AVI, ignore)
    finally:
        os.umask(before)
    status = (target / "a.avi").stat()
    assert f"{stat.S_IMODE(status.st_mode):o}" == "644"
    assert status.st_mtime > OLD
    assert status.st_uid == os.getuid()


@kinds
def test_progress_ends_at_the_total_and_never_goes_back(kind: str, tmp_path: Path, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = make(kind, tmp_path / "a", {f"{i}.avi": os.urandom(100_000) for i in range(30)})
    unpack(path, target, AVI, lambda done, total: seen.append((done, total)))
    total = 3_000_000 if kind == "zip" else path.stat().st_size
    assert {t for _, t in seen} == {total}
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert len({d for d, _ in seen}) > 3, "bzip2 goes by blocks of nearly a megabyte"
    assert seen[-1][0] == total


# What is refused.


def hostile_tar(path: Path) -> list[str]:
    """A tar archive whose every member but the last is unsafe; returns how the names of these are shown."""
    with tarfile.open(path, "w") as tar:
        for name in ["../up.avi", "a/../../up.avi", "/abs.avi", "a\\b.avi", "..", "."]:
            add(tar, name, b"evil")
        add(tar, "sym.avi", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "sym.avi/inner.avi", type=tarfile.LNKTYPE, linkname="../../x")
        add(tar, "fifo.avi", type=tarfile.FIFOTYPE)
        add(tar, "char.avi", type=tarfile.CHRTYPE)
        add(tar, "block.avi", type=tarfile.BLKTYPE)
        add(tar, "odd.avi", b"content", type=b"Z")
        add(tar, "x.avi", b"evil", pax_headers={"path": "nul\0.avi"})
        add(tar, "good.avi", b"good")
    return [
        *("../up.avi", "a/../../up.avi", "/abs.avi", "a\\b.avi", "..", ".", "sym.avi", "sym.avi/inner.avi"),
        *("fifo.avi", "char.avi", "block.avi", "odd.avi", "nul\\x00.avi"),
    ]


def test_unsafe_members_of_a_tar_are_refused_and_never_written(tmp_path: Path, target: Path) -> None:
    names = hostile_tar(tmp_path / "a.tar")
    before = tree(tmp_path)
    refused = unpack(tmp_path / "a.tar", target, AVI, ignore)
    assert refusals(refused) == [(f"a.tar:{name}", "unsafe-member") for name in names]
    reasons = " ".join(r.reason for r in refused)
    for word in [
        "upwards",
        "absolute",
        "backslash",
        "symbolic link to /etc/passwd",
        "hard link",
        "pipe",
        "device",
        "type b'Z'",
    ]:
        assert word in reasons
    after = tree(tmp_path)
    after.pop("work/refused.json")
    assert after == {**before, "work/source/good.avi": b"good"}


def test_unsafe_members_of_a_zip_are_refused_and_never_written(tmp_path: Path, target: Path) -> None:
    names = ["../up.avi", "a/../../up.avi", "/abs.avi", "a\\b.avi"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in names:
            file.writestr(name, b"evil")
        for name, kind in {"sym.avi": stat.S_IFLNK, "fifo.avi": stat.S_IFIFO, "dev.avi": stat.S_IFCHR}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            file.writestr(info, "/etc/passwd")
        file.writestr("good.avi", b"good")
    refused = unpack(tmp_path / "a.zip", target, AVI, ignore)
    expected = [*names, "sym.avi", "fifo.avi", "dev.avi"]
    assert refusals(refused) == [(f"a.zip:{name}", "unsafe-member") for name in expected]
    assert [r.reason for r in refused[-3:]] == ["it is a symbolic link", *["it is neither a file nor a folder"] * 2]
    assert tree(tmp_path).keys() == {"a.zip", "work/refused.json", "work/source/good.avi"}


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """Change the bytes of a file in place: what a well-behaved writer would not write."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_a_nul_in_a_zip_name_is_refused(tmp_path: Path, target: Path) -> None:
    path = patched(zip_of(tmp_path / "a.zip", {"n?l.avi": b"x", "b.avi": b"y"}), b"n?l.avi", b"n\0l.avi")
    assert refusals(unpack(path, target, ALL, ignore)) == [("a.zip:n\\x00l.avi", "unsafe-member")]
    assert tree(target) == {"b.avi": b"y"}


def test_an_encrypted_zip_member_is_refused(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.avi": b"x", "b.avi": b"y"})
    content = bytearray(path.read_bytes())
    for mark, offset in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)]:
        content[content.index(mark) + offset] |= 0x1
    path.write_bytes(content)
    (refused,) = unpack(path, target, AVI, ignore)
    assert refused == RefusedMember("a.zip:a.avi", "unsafe-member", "it is encrypted")
    assert tree(target) == {"b.avi": b"y"}


@kinds
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_first_of_a_name_stays(kind: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    names = ["a.avi", "./a.avi", "a.avi/inner.avi", "b.avi/x.avi", "b.avi"]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for number, name in enumerate(names):
                file.writestr(name, str(number))
    else:
        with tarfile.open(path, TAR_MODES[kind]) as tar:  # type: ignore[call-overload]
            for number, name in enumerate(names):
                add(tar, name, str(number).encode())
    refused = unpack(path, target, AVI, ignore)
    expected = ["a.avi", "a.avi/inner.avi", "b.avi"]
    assert refusals(refused) == [(f"a:{name}", "duplicate-name") for name in expected]
    assert tree(target) == {"a.avi": b"0", "b.avi/x.avi": b"3"}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_name_that_is_not_utf8_is_refused(format: int, tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=format, errors="surrogateescape") as tar:
        add(tar, "caf\udce9.avi", b"x")
        add(tar, "caf\udce9.txt", b"not wanted, so not worth a word")
        add(tar, "b.avi", b"y")
    refused = unpack(tmp_path / "a.tar", target, AVI, ignore)
    assert refusals(refused) == [("a.tar:caf\\xe9.avi", "bad-name")]
    assert tree(target) == {"b.avi": b"y"}


def test_a_zip_name_without_a_mark_is_utf8_or_refused(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"caf?.avi": b"x", "d??.avi": b"y"})
    patched(path, b"caf?.avi", b"caf\x82.avi")
    patched(path, b"d??.avi", "dé.avi".encode())
    assert refusals(unpack(path, target, AVI, ignore)) == [("a.zip:caf\\x82.avi", "bad-name")]
    assert tree(target) == {"dé.avi": b"y"}


@kinds
def test_a_name_that_no_file_system_takes_is_refused(kind: str, tmp_path: Path, target: Path) -> None:
    path = make(kind, tmp_path / "a", {"x" * 300 + ".avi": b"x", "b.avi": b"y"})
    assert [r.rule for r in unpack(path, target, AVI, ignore)] == ["bad-name"]
    assert tree(target) == {"b.avi": b"y"}


def test_addresses_are_safe_to_print(tmp_path: Path, target: Path) -> None:
    tar_of(tmp_path / "a.tar", {"../\x1b[31m\n.avi": b"x", "b.avi": b"y"})
    (refused,) = unpack(tmp_path / "a.tar", target, AVI, ignore)
    assert refused.address == "a.tar:../\\x1b[31m\\n.avi"


NAMES = st.lists(
    st.text(
        # Neither writer writes a NUL, which has tests of its own.
        st.one_of(st.sampled_from("/\\. a~\n"), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
        max_size=40,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=NAMES, kind=st.sampled_from(["tar", "zip"]))
def test_nothing_is_ever_written_outside(names: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "a", "b", "c")
        root.mkdir(parents=True)
        path = root / "archive"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile tells of duplicate names.
            make(kind, path, dict.fromkeys(names, b"x"))
        target = root / "work" / "source"
        with contextlib.suppress(SourceError):
            unpack(path, target, ALL, ignore)
        outside = [p for p in Path(folder).rglob("*") if not p.is_dir() and not p.is_relative_to(target)]
        assert set(outside) <= {path, target.with_name("refused.json")}
        assert not [p for p in Path(folder).rglob("*") if p.is_symlink()]


# What passes a limit.


@kinds
def test_a_bomb_is_stopped_by_the_bytes_that_arrive(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 5_000_000)
    monkeypatch.setattr(members, "MAX_TOTAL_RATIO", 0)
    path = make(kind, tmp_path / "a", {f"{i}.avi": bytes(1_000_000) for i in range(6)})
    assert "unpacks to more than 5,000,000 bytes" in error_of(path, target)
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 6_000_000)
    unpack(path, target, AVI, ignore)


def test_the_ratio_allows_more_from_a_larger_archive(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 0)
    path = tar_of(tmp_path / "a", {"a.avi": bytes(1_000_000)}, "w:gz")
    assert "unpacks to more than" in error_of(path, target)
    monkeypatch.setattr(members, "MAX_TOTAL_RATIO", 2000)
    unpack(path, target, AVI, ignore)


@kinds
def test_one_member_has_a_limit(kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_MEMBER_BYTES", 999)
    path = make(kind, tmp_path / "a", {"small.avi": bytes(999), "large.avi": bytes(1000)})
    assert "a member of more than 999 bytes, large.avi," in error_of(path, target)


@kinds
def test_members_of_any_kind_are_counted(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    path = make(kind, tmp_path / "a", {f"{i}.txt": b"" for i in range(4)})
    assert "more than 3 members" in error_of(path, target, AVI)


def test_refusals_have_a_limit(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_REFUSED", 2)
    path = tar_of(tmp_path / "a", {f"../{i}.avi": b"" for i in range(3)})
    assert "more than 2 members that cannot be unpacked" in error_of(path, target, AVI)


def test_a_zip_that_does_not_fit_is_told_at_once(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.avi": bytes(1000), "b.txt": bytes(10_000)})
    usage = type("usage", (), {"free": 999})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "takes 1,000 bytes, but the disk of" in error_of(path, target, AVI)


def test_a_header_is_not_read_into_memory_at_will(tmp_path: Path, target: Path) -> None:
    """A long-name header of 200 MB of zeros, which a compressed archive holds in 200 kB."""
    path = tmp_path / "a.tar.gz"
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 200_000_000
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(200):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    error = error_of(path, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "a header declares an implausible size" in error
    assert peak < 20_000_000


def test_headers_of_headers_are_an_error(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 5000)
    assert "is damaged at its beginning" in error_of(tmp_path / "a.tar", target)


def test_memory_does_not_grow_with_the_members(tmp_path: Path, target: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(count):
                records = {f"key{number}": "x" * 1000}
                tar.fileobj.write(tarfile.TarInfo.create_pax_global_header(records))
                tar.fileobj.write(tarfile.TarInfo(f"{number}.txt").tobuf())
            add(tar, "a.avi", b"x")
        tracemalloc.start()
        unpack(path, tmp_path / str(count) / "source", AVI, ignore)
        _, bytes_at_peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_at_peak

    peak(10)
    assert peak(3000) < peak(300) + 100_000


# What is damaged.


@pytest.mark.parametrize("kind", TAR_MODES)
@pytest.mark.parametrize("part", [0.05, 0.55, 0.95])
def test_a_truncated_tar(kind: str, part: float, tmp_path: Path, target: Path) -> None:
    path = make(kind, tmp_path / "a", {f"{i}.avi": os.urandom(20_000) for i in range(10)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    error = error_of(path, target)
    assert "is damaged a" in error
    assert "download it again" in error


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_truncated_tar_names_the_member_where_it_broke(kind: str, tmp_path: Path, target: Path) -> None:
    path = make(kind, tmp_path / "a", {f"{i}.avi": os.urandom(100_000) for i in range(10)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 55 // 100])
    assert "damaged at or after the member 5.avi (byte 50" in error_of(path, target)


def test_a_tar_cut_off_between_members_is_damaged(tmp_path: Path, target: Path) -> None:
    path = tar_of(tmp_path / "a", {"a.avi": bytes(512), "b.avi": bytes(512)})
    path.write_bytes(path.read_bytes()[:1024])
    error = error_of(path, target)
    assert "at or after the member a.avi" in error
    assert "ends without an end mark" in error


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path: Path, target: Path) -> None:
    path = patched(tar_of(tmp_path / "a", {"a.avi": b"x", "bb.avi": b"y", "c.avi": b"z"}), b"bb.avi", b"bc.avi")
    error = error_of(path, target)
    assert "after the member a.avi (byte 512 when unpacked): bad checksum" in error


@pytest.mark.parametrize("size", ["-5000", "-1536", "9" * 30], ids=["back", "back to itself", "beyond"])
def test_a_size_that_makes_no_sense(size: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 1000)
    with tarfile.open(tmp_path / "a", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.txt", b"x" * 9000)
        add(tar, "b.txt", b"x", pax_headers={"size": size})
        add(tar, "c.avi", b"x")
    assert "is damaged at or after the member b.txt" in error_of(tmp_path / "a", target, AVI)


def test_a_negative_size_in_a_header(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("a.avi")
    header.size = -512
    (tmp_path / "a").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "negative size" in error_of(tmp_path / "a", target)


def test_damaged_compressed_data(tmp_path: Path, target: Path) -> None:
    path = tar_of(tmp_path / "a", {"a.avi": os.urandom(50_000)}, "w:gz")
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    assert "is damaged a" in error_of(path, target)


def test_damaged_compressed_data_in_a_zip(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a", {"a.avi": bytes(range(256)) * 4000})
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 100 + content[200:])
    assert "is damaged at the member a.avi: Error -3 while decompressing" in error_of(path, target)


def test_deflate_that_cannot_be(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 100)
    assert "Error -3 while decompressing data" in error_of(path, target)


def test_a_zip_name_that_is_marked_as_utf8_but_is_not(tmp_path: Path, target: Path) -> None:
    path = patched(zip_of(tmp_path / "a", {"é.avi": b"x"}), "é".encode(), b"\xff\xff")
    assert "damaged in its list of members: 'utf-8' codec" in error_of(path, target)


def test_a_second_archive_behind_the_first_is_not_lost_unnoticed(tmp_path: Path, target: Path) -> None:
    path = tar_of(tmp_path / "a", {"a.avi": b"x"})
    path.write_bytes(path.read_bytes() + tar_of(tmp_path / "b", {"b.avi": b"y"}).read_bytes())
    assert "after its end mark: more data follows" in error_of(path, target)


def test_a_wrong_checksum_of_gzip_is_seen_though_the_tar_has_ended(tmp_path: Path, target: Path) -> None:
    path = tar_of(tmp_path / "a", {"a.avi": b"x"}, "w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "CRC check failed" in error_of(path, target)


def test_a_wrong_checksum_in_a_zip_names_the_member(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a", {"v/a.avi": b"hello world"}, zipfile.ZIP_STORED)
    error = error_of(patched(path, b"hello", b"hallo"), target)
    assert "damaged at the member v/a.avi: Bad CRC-32" in error


def test_a_truncated_zip(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a", {"a.avi": os.urandom(10_000)})
    path.write_bytes(path.read_bytes()[:5000])
    assert "damaged in its list of members" in error_of(path, target)


def test_a_zip_method_that_python_lacks_names_the_command(tmp_path: Path, target: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.avi": b"x"})
    content = bytearray(path.read_bytes())
    for mark, offset in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)]:
        struct.pack_into("<H", content, content.index(mark) + offset, 9)
    path.write_bytes(content)
    error = error_of(path, target)
    assert "compression method" in error
    assert "7z x a.zip" in error


def test_gzip_of_something_else_is_not_taken_for_a_tar(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "labels.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}' * 1000))
    assert "where the first header of a tar archive should be" in error_of(path, target)


@functools.cache
def whole_archive(kind: str) -> bytes:
    """One archive a run: its bytes hold the time, and the places that are altered are drawn from them."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        members = {"d/é.avi": b"abc" * 500, "x" * 120 + ".avi": b"", "../c.avi": b"z"}
        return make(kind, Path(folder, "a"), members).read_bytes()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from([*TAR_MODES, "zip"]), data=st.data())
def test_altered_bytes_give_a_source_error_or_nothing(kind: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        content = bytearray(whole_archive(kind))
        # Most of a plain tar archive is zeros; what is worth altering stands where the others are.
        places = [i for i, byte in enumerate(content) if byte]
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.sampled_from(places))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            unpack(path, Path(folder, "work", "source"), ALL, ignore)
        except SourceError:
            assert not Path(folder, "work", "source").exists()


# All or nothing.


@kinds
def test_an_archive_is_unpacked_once(kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(kind, tmp_path / "a", {"../x.avi": b"x", "b.avi": b"y"})
    first = unpack(path, target, AVI, ignore)
    assert len(first) == 1
    monkeypatch.setattr(archive, "_unpack_into", never)
    assert unpack(path, target, AVI, ignore) == first


def never(*_: object) -> None:
    raise AssertionError("the archive was opened again")


def test_a_folder_of_another_archive_is_not_reused(tmp_path: Path, target: Path) -> None:
    unpack(tar_of(tmp_path / "a", {"a.avi": b"x", "a.txt": b"t"}), target, AVI, ignore)
    unpack(tmp_path / "a", target, ALL, ignore)
    assert tree(target) == {"a.avi": b"x", "a.txt": b"t"}
    unpack(tar_of(tmp_path / "b", {"../b.avi": b"", "b.avi": b"y"}), target, AVI, ignore)
    assert tree(target) == {"b.avi": b"y"}
    tar_of(tmp_path / "b", {"../b.avi": b"", "b.avi": b"z"})
    os.utime(tmp_path / "b", (OLD, OLD))
    unpack(tmp_path / "b", target, AVI, ignore)
    assert tree(target) == {"b.avi": b"z"}


@pytest.mark.parametrize("content", [None, "", "[]", '{"refused": 1}', '{"refused": [["a"]]}'])
def test_a_folder_without_its_record_is_not_reused(content: str | None, tmp_path: Path, target: Path) -> None:
    path = tar_of(tmp_path / "a", {"../x.avi": b"x", "b.avi": b"y"})
    first = unpack(path, target, AVI, ignore)
    record = target.with_name("refused.json")
    assert json.loads(record.read_text())["refused"][0][1] == "unsafe-member"
    record.unlink()
    if content is not None:
        record.write_text(content)
    (target / "stray").write_text("")
    assert unpack(path, target, AVI, ignore) == first
    assert tree(target) == {"b.avi": b"y"}


def test_what_a_killed_run_left_is_removed(tmp_path: Path, target: Path) -> None:
    left = target.with_name("source.tmp")
    left.mkdir(parents=True)
    (left / "half.avi").write_bytes(b"half")
    unpack(tar_of(tmp_path / "a", {"b.avi": b"y"}), target, AVI, ignore)
    assert tree(target) == {"b.avi": b"y"}
    assert not left.exists()


KILLED = """
import os, sys
from pathlib import Path
from convkit.sources.archive import unpack
steps = 0
def audit(event, args):
    global steps
    # Whole trees are removed by names relative to an open folder.
    relative = event == "os.remove" and args[1] != -1
    if relative or event in {"open", "os.rename", "os.mkdir", "os.remove"} and str(args[0]).startswith(sys.argv[1]):
        steps += 1
        if steps == int(sys.argv[3]):
            os._exit(9)
sys.addaudithook(audit)
unpack(Path(sys.argv[2]), Path(sys.argv[1], "source"), frozenset({".avi"}), lambda done, total: None)
"""


def killed_runs(path: Path, work: Callable[[int], Path]) -> Iterator[Path]:
    """Unpack in processes that are killed at their first step, at their second, and so on to one that ends by itself.

    A step is a change below the work folder, which `work` makes for each.
    """
    for step in range(1, 100):
        folder = work(step)
        process = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(path), str(step)],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            check=False,
        )
        yield folder
        if process.returncode == 0:
            assert step > 5
            return
        assert process.returncode == 9


def test_killed_at_any_step_the_next_run_gives_the_same(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a", {"../x.avi": b"x", "v/b.avi": b"y", "c.avi": b"z"})
    expected = unpack(path, tmp_path / "calm" / "source", AVI, ignore)

    def empty(step: int) -> Path:
        (folder := tmp_path / str(step)).mkdir()
        return folder

    for folder in killed_runs(path, empty):
        assert unpack(path, folder / "source", AVI, ignore) == expected
        assert tree(folder / "source") == {"v/b.avi": b"y", "c.avi": b"z"}


def test_killed_while_another_archive_is_replaced(tmp_path: Path) -> None:
    old = tar_of(tmp_path / "old", {"a.avi": b"1", "b.avi": b"2", "c/d.avi": b"3"})
    new = tar_of(tmp_path / "new", {"a.avi": b"4"})

    def unpacked(step: int) -> Path:
        unpack(old, tmp_path / str(step) / "source", AVI, ignore)
        return tmp_path / str(step)

    for folder in killed_runs(new, unpacked):
        unpack(old, folder / "source", AVI, ignore)
        assert tree(folder / "source") == {"a.avi": b"1", "b.avi": b"2", "c/d.avi": b"3"}


@kinds
def test_a_full_disk_is_told_as_such(kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, path: object, content: Iterator[bytes], file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(members.Extraction, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(make(kind, tmp_path / "a", {"a.avi": b"x"}), target, AVI, ignore)
    assert not target.exists()
    assert not target.with_name("source.tmp").exists()


def test_an_error_of_the_disk_that_is_read_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, members.translate_errors(tmp_path, "anywhere"):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.errno == errno.EIO


# What is no archive.


@kinds
def test_an_archive_without_wanted_files_says_what_was_looked_for(kind: str, tmp_path: Path, target: Path) -> None:
    path = make(kind, tmp_path / "a", {"a.txt": b"x", "../a.avi": b"x"})
    error = error_of(path, target, frozenset({".mp4", ".avi"}))
    assert "contains no file with the suffix .avi or .mp4 that can be unpacked" in error
    assert "1 members were refused, the first because its name leads upwards" in error


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_empty_archive(kind: str, tmp_path: Path, target: Path) -> None:
    assert "contains no file that can be unpacked" in error_of(make(kind, tmp_path / "a", {}), target)


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
def test_what_cannot_be_unpacked(name: str, content: bytes, expected: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert expected in error_of(path, target)


def test_a_tar_of_before_1988_has_no_mark_but_is_one(tmp_path: Path, target: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.avi").tobuf(tarfile.USTAR_FORMAT))
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a").write_bytes(bytes(header) + bytes(1024))
    unpack(tmp_path / "a", target, AVI, ignore)
    assert tree(target) == {"a.avi": b""}

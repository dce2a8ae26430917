"""Unsafe, duplicate and badly named members are refused, reported and never written."""

import contextlib
import stat
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convkit.errors import SourceError
from convkit.sources import RefusedMember
from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress
from tests.sources.archives import (
    ALL,
    AVI,
    TAR_MODES,
    add_member,
    every_kind,
    make_archive,
    make_tar,
    make_zip,
    read_files,
    refusals,
    replace_bytes,
)


def hostile_tar(path: Path) -> list[str]:
    """Write a tar archive in which every member but the last is unsafe; return the escaped names of these."""
    with tarfile.open(path, "w") as tar:
        for name in ["../up.avi", "a/../../up.avi", "/abs.avi", "a\\b.avi", "..", "."]:
            add_member(tar, name, b"evil")
        add_member(tar, "sym.avi", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(tar, "sym.avi/inner.avi", type=tarfile.LNKTYPE, linkname="../../x")
        add_member(tar, "fifo.avi", type=tarfile.FIFOTYPE)
        add_member(tar, "char.avi", type=tarfile.CHRTYPE)
        add_member(tar, "block.avi", type=tarfile.BLKTYPE)
        add_member(tar, "odd.avi", b"content", type=b"Z")
        add_member(tar, "x.avi", b"evil", pax_headers={"path": "nul\0.avi"})
        add_member(tar, "good.avi", b"good")
    return [
        *("../up.avi", "a/../../up.avi", "/abs.avi", "a\\b.avi", "..", ".", "sym.avi", "sym.avi/inner.avi"),
        *("fifo.avi", "char.avi", "block.avi", "odd.avi", "nul\\x00.avi"),
    ]


def test_unsafe_members_of_a_tar_are_refused_and_never_written(tmp_path: Path, target: Path) -> None:
    names = hostile_tar(tmp_path / "a.tar")
    before = read_files(tmp_path)
    refused = unpack(tmp_path / "a.tar", target, AVI, ignore_progress)
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
    after = read_files(tmp_path)
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
    refused = unpack(tmp_path / "a.zip", target, AVI, ignore_progress)
    expected = [*names, "sym.avi", "fifo.avi", "dev.avi"]
    assert refusals(refused) == [(f"a.zip:{name}", "unsafe-member") for name in expected]
    assert [r.reason for r in refused[-3:]] == ["it is a symbolic link", *["it is neither a file nor a folder"] * 2]
    assert read_files(tmp_path).keys() == {"a.zip", "work/refused.json", "work/source/good.avi"}


def test_a_nul_in_a_zip_name_is_refused(tmp_path: Path, target: Path) -> None:
    path = replace_bytes(make_zip(tmp_path / "a.zip", {"n?l.avi": b"x", "b.avi": b"y"}), b"n?l.avi", b"n\0l.avi")
    assert refusals(unpack(path, target, ALL, ignore_progress)) == [("a.zip:n\\x00l.avi", "unsafe-member")]
    assert read_files(target) == {"b.avi": b"y"}


def test_an_encrypted_zip_member_is_refused(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.avi": b"x", "b.avi": b"y"})
    content = bytearray(path.read_bytes())
    for mark, offset in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)]:
        content[content.index(mark) + offset] |= 0x1
    path.write_bytes(content)
    (refused,) = unpack(path, target, AVI, ignore_progress)
    assert refused == RefusedMember("a.zip:a.avi", "unsafe-member", "it is encrypted")
    assert read_files(target) == {"b.avi": b"y"}


@every_kind
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_first_member_of_a_name_is_kept(kind: str, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "a"
    names = ["a.avi", "./a.avi", "a.avi/inner.avi", "b.avi/x.avi", "b.avi"]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for number, name in enumerate(names):
                file.writestr(name, str(number))
    else:
        with tarfile.open(path, TAR_MODES[kind]) as tar:  # type: ignore[call-overload]
            for number, name in enumerate(names):
                add_member(tar, name, str(number).encode())
    refused = unpack(path, target, AVI, ignore_progress)
    expected = ["a.avi", "a.avi/inner.avi", "b.avi"]
    assert refusals(refused) == [(f"a:{name}", "duplicate-name") for name in expected]
    assert read_files(target) == {"a.avi": b"0", "b.avi/x.avi": b"3"}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_name_that_is_not_utf8_is_refused(format: int, tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=format, errors="surrogateescape") as tar:
        add_member(tar, "caf\udce9.avi", b"x")
        add_member(tar, "caf\udce9.txt", b"not wanted, so not worth a word")
        add_member(tar, "b.avi", b"y")
    refused = unpack(tmp_path / "a.tar", target, AVI, ignore_progress)
    assert refusals(refused) == [("a.tar:caf\\xe9.avi", "bad-name")]
    assert read_files(target) == {"b.avi": b"y"}


def test_a_zip_name_without_the_utf8_flag_is_decoded_as_utf8_or_refused(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"caf?.avi": b"x", "d??.avi": b"y"})
    replace_bytes(path, b"caf?.avi", b"caf\x82.avi")
    replace_bytes(path, b"d??.avi", "dé.avi".encode())
    assert refusals(unpack(path, target, AVI, ignore_progress)) == [("a.zip:caf\\x82.avi", "bad-name")]
    assert read_files(target) == {"dé.avi": b"y"}


@every_kind
def test_a_name_too_long_for_the_file_system_is_refused(kind: str, tmp_path: Path, target: Path) -> None:
    path = make_archive(kind, tmp_path / "a", {"x" * 300 + ".avi": b"x", "b.avi": b"y"})
    assert [r.rule for r in unpack(path, target, AVI, ignore_progress)] == ["bad-name"]
    assert read_files(target) == {"b.avi": b"y"}


def test_unprintable_characters_of_addresses_are_escaped(tmp_path: Path, target: Path) -> None:
    make_tar(tmp_path / "a.tar", {"../\x1b[31m\n.avi": b"x", "b.avi": b"y"})
    (refused,) = unpack(tmp_path / "a.tar", target, AVI, ignore_progress)
    assert refused.address == "a.tar:../\\x1b[31m\\n.avi"


NAMES = st.lists(
    st.text(
        # Neither writer can write a NUL, which has its own tests.
        st.one_of(st.sampled_from("/\\. a~\n"), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
        max_size=40,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=NAMES, kind=st.sampled_from(["tar", "zip"]))
def test_no_member_is_ever_written_outside_the_folder(names: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "a", "b", "c")
        root.mkdir(parents=True)
        path = root / "archive"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns about duplicate names
            make_archive(kind, path, dict.fromkeys(names, b"x"))
        target = root / "work" / "source"
        with contextlib.suppress(SourceError):
            unpack(path, target, ALL, ignore_progress)
        outside = [p for p in Path(folder).rglob("*") if not p.is_dir() and not p.is_relative_to(target)]
        assert set(outside) <= {path, target.with_name("refused.json")}
        assert not [p for p in Path(folder).rglob("*") if p.is_symlink()]

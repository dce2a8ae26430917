"""An archive is unpacked once, and completely or not at all, even if the process is killed."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from convkit.sources import archive, members
from convkit.sources.archive import unpack
from convkit.utils.progress import ignore_progress
from tests.sources.archives import ALL, AVI, OLD, every_kind, make_archive, make_tar, read_files


@every_kind
def test_an_archive_is_unpacked_once(kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_archive(kind, tmp_path / "a", {"../x.avi": b"x", "b.avi": b"y"})
    first = unpack(path, target, AVI, ignore_progress)
    assert len(first) == 1
    monkeypatch.setattr(archive, "_unpack_into", fail_if_called)
    assert unpack(path, target, AVI, ignore_progress) == first


def fail_if_called(*_: object) -> None:
    raise AssertionError("the archive was opened again")


def test_a_folder_of_another_archive_is_not_reused(tmp_path: Path, target: Path) -> None:
    unpack(make_tar(tmp_path / "a", {"a.avi": b"x", "a.txt": b"t"}), target, AVI, ignore_progress)
    unpack(tmp_path / "a", target, ALL, ignore_progress)
    assert read_files(target) == {"a.avi": b"x", "a.txt": b"t"}
    unpack(make_tar(tmp_path / "b", {"../b.avi": b"", "b.avi": b"y"}), target, AVI, ignore_progress)
    assert read_files(target) == {"b.avi": b"y"}
    make_tar(tmp_path / "b", {"../b.avi": b"", "b.avi": b"z"})
    os.utime(tmp_path / "b", (OLD, OLD))
    unpack(tmp_path / "b", target, AVI, ignore_progress)
    assert read_files(target) == {"b.avi": b"z"}


@pytest.mark.parametrize("content", [None, "", "[]", '{"refused": 1}', '{"refused": [["a"]]}'])
def test_a_folder_without_its_record_is_not_reused(content: str | None, tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "a", {"../x.avi": b"x", "b.avi": b"y"})
    first = unpack(path, target, AVI, ignore_progress)
    record = target.with_name("refused.json")
    assert json.loads(record.read_text())["refused"][0][1] == "unsafe-member"
    record.unlink()
    if content is not None:
        record.write_text(content)
    (target / "stray").write_text("")
    assert unpack(path, target, AVI, ignore_progress) == first
    assert read_files(target) == {"b.avi": b"y"}


def test_files_left_by_a_killed_run_are_removed(tmp_path: Path, target: Path) -> None:
    left = target.with_name("source.tmp")
    left.mkdir(parents=True)
    (left / "half.avi").write_bytes(b"half")
    unpack(make_tar(tmp_path / "a", {"b.avi": b"y"}), target, AVI, ignore_progress)
    assert read_files(target) == {"b.avi": b"y"}
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
    """Unpack in processes that are killed at their first step, their second, and so on, until one ends by itself.

    A step is a change below the work folder, which `work` creates for each process.
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


def test_a_run_after_a_kill_at_any_step_gives_identical_output(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a", {"../x.avi": b"x", "v/b.avi": b"y", "c.avi": b"z"})
    expected = unpack(path, tmp_path / "calm" / "source", AVI, ignore_progress)

    def empty(step: int) -> Path:
        (folder := tmp_path / str(step)).mkdir()
        return folder

    for folder in killed_runs(path, empty):
        assert unpack(path, folder / "source", AVI, ignore_progress) == expected
        assert read_files(folder / "source") == {"v/b.avi": b"y", "c.avi": b"z"}


def test_a_kill_while_replacing_another_archive_leaves_no_mixture(tmp_path: Path) -> None:
    old = make_tar(tmp_path / "old", {"a.avi": b"1", "b.avi": b"2", "c/d.avi": b"3"})
    new = make_tar(tmp_path / "new", {"a.avi": b"4"})

    def unpacked(step: int) -> Path:
        unpack(old, tmp_path / str(step) / "source", AVI, ignore_progress)
        return tmp_path / str(step)

    for folder in killed_runs(new, unpacked):
        unpack(old, folder / "source", AVI, ignore_progress)
        assert read_files(folder / "source") == {"a.avi": b"1", "b.avi": b"2", "c/d.avi": b"3"}


@every_kind
def test_a_full_disk_is_reported_as_an_os_error(
    kind: str, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, path: object, content: Iterator[bytes], file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(members.Extraction, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(make_archive(kind, tmp_path / "a", {"a.avi": b"x"}), target, AVI, ignore_progress)
    assert not target.exists()
    assert not target.with_name("source.tmp").exists()


def test_a_disk_read_error_is_not_reported_as_damage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, members.translate_errors(tmp_path, "anywhere"):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.errno == errno.EIO

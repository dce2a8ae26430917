"""A conversion that is killed at any instant resumes to the same bytes as an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from convkit.errors import DatasetError, SourceError
from tests.conftest import ROOT
from tests.convert.helpers import run, run_lines, tree
from tests.convert.kills import assert_resumes_after_kills
from tests.convert.toy import Line, Lines, write_lines

FILES = 20 * 8  # frames of the clips from conftest
KILLS = sorted(random.Random(20).sample(range(FILES), 20))
DEADLINE_S = 30


@pytest.fixture(scope="session")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run("ucf101", clips, out)
    return tree(out)


class Conversion:
    """A conversion of clips in a separate process with two workers."""

    def __init__(self, source: Path, out_dir: Path) -> None:
        self.out_dir = out_dir
        self._mark = f"CONVKIT_TEST_MARK={uuid.uuid4()}"
        name, value = self._mark.split("=")
        command = ["-m", "convkit", "convert", "ucf101", "--workers", "2", "--source"]
        self._process = subprocess.Popen(
            [sys.executable, *command, str(source), "--out_dir", str(out_dir)],
            env={**os.environ, "PYTHONPATH": str(ROOT), name: value},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_at(self, files: int) -> None:
        """Kill the process, but not its workers, as soon as this many images exist."""
        while self._process.poll() is None and _count_files(self.out_dir / "images") < files:
            pass
        self._kill()

    def kill_at_the_end(self) -> None:
        """Kill the process as soon as the first row file exists."""
        while self._process.poll() is None and not list(self.out_dir.glob("*.jsonl")):
            pass
        self._kill()

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() in (-signal.SIGKILL, 0), "it failed by itself"

    def survivors(self) -> list[str]:
        """Return the ids of its processes that do not end before the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while (found := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    def _processes(self) -> list[str]:
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and self._mark.encode() in _environment(pid)]


def _environment(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.mark.parametrize("files", KILLS)
def test_killed_while_converting(files: int, clips: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    conversion = Conversion(clips, tmp_path / "out")
    conversion.kill_at(files)
    # Resume at once, while a worker may not have noticed yet that its parent is dead.
    run("ucf101", clips, tmp_path / "out")
    assert tree(tmp_path / "out") == undisturbed
    assert conversion.survivors() == []
    assert tree(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("attempt", range(3))
def test_killed_while_finalizing(attempt: int, clips: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    conversion = Conversion(clips, tmp_path / "out")
    conversion.kill_at_the_end()
    run("ucf101", clips, tmp_path / "out")
    assert tree(tmp_path / "out") == undisturbed
    assert conversion.survivors() == []


def test_killed_repeatedly(clips: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    conversions = []
    for files in (20, 70, 120):
        conversion = Conversion(clips, tmp_path / "out")
        conversion.kill_at(files)
        conversions.append(conversion)
    run("ucf101", clips, tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == undisturbed
    assert [survivor for conversion in conversions for survivor in conversion.survivors()] == []


def test_killed_before_each_single_change_of_the_directory(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", "ok")
    assert assert_resumes_after_kills(Lines, Lines.Options(), source, tmp_path) > 20


@pytest.fixture
def half(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source of seven lines, and a directory in which six of them are converted."""
    source = write_lines(tmp_path / "source", *["ok"] * 6, "interrupt")
    Lines.converted.clear()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        convert = Lines.convert

        def interrupted(self: Lines, item: Line) -> object:
            if item.text == "interrupt":
                raise KeyboardInterrupt
            return convert(self, item)

        patch.setattr(Lines, "convert", interrupted)
        run_lines(source, tmp_path / "out")
    assert Lines.converted == [0, 1, 2, 3, 4, 5]
    Lines.converted.clear()
    return source, tmp_path / "out"


def _undisturbed_tree(source: Path, out_dir: Path) -> dict[str, str]:
    """Return the tree of an undisturbed conversion of the source."""
    converted = Lines.converted.copy()
    run_lines(source, out_dir.parent / "undisturbed")
    Lines.converted[:] = converted
    return tree(out_dir.parent / "undisturbed")


def test_converted_items_are_not_converted_again(half: tuple[Path, Path]) -> None:
    run_lines(*half)
    assert Lines.converted == [6]
    assert tree(half[1]) == _undisturbed_tree(*half)


@pytest.mark.parametrize("lost", [1, 7, 90])
def test_an_incomplete_last_line_of_the_journal_is_converted_again(half: tuple[Path, Path], lost: int) -> None:
    journal = half[1] / ".partial/journal.jsonl"
    os.truncate(journal, journal.stat().st_size - lost)
    run_lines(*half)
    assert Lines.converted == [5, 6]
    assert tree(half[1]) == _undisturbed_tree(*half)


def test_a_journal_with_a_lost_block_is_truncated_there(half: tuple[Path, Path]) -> None:
    journal = half[1] / ".partial/journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + bytes(len(lines[2])) + b"".join(lines[3:]))
    run_lines(*half)
    assert Lines.converted == [2, 3, 4, 5, 6]
    assert tree(half[1]) == _undisturbed_tree(*half)


@pytest.mark.parametrize("loss", ["gone", "shorter", "empty"])
def test_media_lost_in_a_power_failure_are_written_again(half: tuple[Path, Path], loss: str) -> None:
    path = half[1] / "images/3.txt"
    if loss == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if loss == "empty" else path.stat().st_size - 1)
    run_lines(*half)
    assert Lines.converted == [3, 4, 5, 6]
    assert tree(half[1]) == _undisturbed_tree(*half)


def test_a_source_that_changed_in_between_is_refused(half: tuple[Path, Path]) -> None:
    write_lines(half[0], "ok", "ok", "other", *["ok"] * 4)
    with pytest.raises(DatasetError, match=r"has changed since .* \(line 3 is now lines\.txt:3\)"):
        run_lines(*half)


def test_a_source_that_became_shorter_is_refused(half: tuple[Path, Path]) -> None:
    write_lines(half[0], "ok", "ok")
    with pytest.raises(DatasetError, match=r"has changed since .* \(line 3 is now missing\)"):
        run_lines(*half)


def test_other_options_are_refused_for_an_unfinished_conversion(clips: Path, tmp_path: Path) -> None:
    conversion = Conversion(clips, tmp_path / "out")
    conversion.kill_at(9)
    assert conversion.survivors() == []
    with pytest.raises(DatasetError, match="unfinished conversion of another kind: jpeg_quality 90 there, 80 here"):
        run("ucf101", clips, tmp_path / "out", jpeg_quality=80)


def test_a_second_conversion_at_the_same_time_is_refused(
    half: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = Lines.convert

    def with_another(self: Lines, item: Line) -> object:
        with pytest.raises(DatasetError, match=f"another conversion is writing to {half[1]}. Wait for it"):
            run_lines(*half)
        return convert(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "convert", with_another)
        run_lines(*half)
    assert Lines.converted == [6]
    assert tree(half[1]) == _undisturbed_tree(*half)


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("irreplaceable")
    with pytest.raises(DatasetError, match="is not empty and contains no convkit dataset"):
        run_lines(source, tmp_path / "out")
    assert tree(tmp_path / "out").keys() == {"thesis.tex"}


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok")
    (tmp_path / "out").mkdir()
    assert run_lines(source, tmp_path / "out").accounting.written == 1


def test_a_resumed_archive_is_unpacked_completely(clips: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "clips"), "tar", clips))
    run("ucf101", archive, tmp_path / "undisturbed")
    conversion = Conversion(archive, tmp_path / "out")
    conversion.kill_at(30)
    run("ucf101", archive, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    assert conversion.survivors() == []


def test_an_archive_that_was_replaced_is_refused(clips: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "clips"), "tar", clips))
    run("ucf101", archive, tmp_path / "out", limit=1)
    shutil.make_archive(str(tmp_path / "clips"), "tar", clips, "test")
    with pytest.raises(DatasetError, match=r"changed|another dataset"):
        run("ucf101", archive, tmp_path / "out", limit=1)


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file.txt").write_text("no clip")
    with pytest.raises(SourceError):
        run("ucf101", tmp_path / "source", tmp_path / "new")
    assert not (tmp_path / "new").exists()

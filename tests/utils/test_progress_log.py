"""Progress without a terminal: a line now and then on standard error, by a fake clock."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convkit.cli import app
from convkit.utils.progress import Note, progress_bar, progress_log
from tests.conftest import ROOT


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return a function that reports (seconds, done) pairs and returns the logged lines."""

    def report(
        *updates: tuple[float, int], total: int | None = None, unit: str = "rows", note: Note = str, end: float = 0
    ) -> list[str]:
        clock = Clock()
        with progress_log("validating", unit, note, clock) as update:
            for seconds, done in updates:
                clock.now = 1000.0 + seconds
                update(done, total)
            clock.now = 1000.0 + max(end, updates[-1][0])
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.splitlines()

    return report


def test_a_line_is_logged_every_30_seconds_and_at_the_end(logged: Callable[..., list[str]]) -> None:
    updates = [(second, 100 * second) for second in range(76)]
    assert logged(*updates, total=7500) == [
        "validating: 3,000 of 7,500 rows (40%), 100 rows/s, 0:00:45 left",
        "validating: 6,000 of 7,500 rows (80%), 100 rows/s, 0:00:15 left",
        "validating: 7,500 of 7,500 rows (100%), 100 rows/s, finished in 0:01:15",
    ]


def test_a_short_stage_logs_nothing(logged: Callable[..., list[str]]) -> None:
    assert logged((0, 0), (29.9, 10), total=10, end=40) == []


def test_a_stage_of_unknown_length_logs_what_is_done(logged: Callable[..., list[str]]) -> None:
    lines = logged((0, 0), (40, 100), note=lambda: "3 quarantined")
    assert lines == [
        "validating: 100 rows, 2.5 rows/s, 3 quarantined",
        "validating: 100 rows, 2.5 rows/s, finished in 0:00:40, 3 quarantined",
    ]


def test_bytes_are_logged_as_megabytes(logged: Callable[..., list[str]]) -> None:
    line = logged((0, 0), (30, 300_000_000), total=1_200_000_000, unit="B")[0]
    assert line == "validating: 300 of 1,200 MB (25%), 10 MB/s, 0:01:30 left"


def test_the_speed_of_a_resumed_stage_leaves_out_what_was_done_before(logged: Callable[..., list[str]]) -> None:
    assert logged((0, 9000), (30, 9300), total=10_000)[0].endswith("10 rows/s, 0:01:10 left")


def test_a_stage_that_fails_logs_no_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="broken"), progress_log("reading", "rows", clock=clock) as update:
        clock.now += 30
        update(1, 2)
        raise ValueError("broken")
    assert capsys.readouterr().err == "reading: 1 of 2 rows (50%)\n"


def test_convert_and_validate_log_their_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.utils.progress.LOG_EVERY_S", 0.0)
    (tmp_path / "photos/train/leaf").mkdir(parents=True)
    shutil.copy(ROOT / "docs/report.png", tmp_path / "photos/train/leaf/1.png")
    made = ["convert", "image-folder", str(tmp_path / "photos"), "-o", str(tmp_path / "data"), "--workers", "0"]
    result = CliRunner().invoke(app, made)
    assert result.exit_code == 0
    assert re.search(r"^converting: 1 of 1 images \(100%\)", result.stderr, re.MULTILINE), result.stderr
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "data"), "--workers", "0"])
    assert result.exit_code == 0
    assert re.search(r"^\S.*: 1 of 1 images \(100%\)", result.stderr, re.MULTILINE), result.stderr
    assert "100%" not in result.stdout


@pytest.mark.parametrize("terminal", [False, True])
def test_only_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("convkit.utils.progress.SHOW_AFTER_S", -1.0)
    monkeypatch.setattr("convkit.utils.progress.LOG_EVERY_S", 0.0)
    with progress_bar("reading", "rows") as update:
        update(1, 2)
    assert ("reading: 1 of 2 rows (50%)\n" in stream.getvalue()) is not terminal
    assert ("\x1b" in stream.getvalue()) is terminal

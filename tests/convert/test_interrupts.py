"""An interrupt ends a conversion at once, with exit code 130, no traceback and nothing lost."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.convert.error_budget import Budget, Policy
from convkit.errors import ConvkitError
from tests.conftest import ROOT
from tests.convert.helpers import run, run_lines, tree
from tests.convert.toy import write_lines

MESSAGE = "convkit: interrupted. Run the same command again to resume.\n"

# Python calls the audit hook before each operation, so every interrupt comes at a reproducible instant.
SCRIPT = """
import os, signal, sys

wanted, name, number, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
del sys.argv[1:5]
sent = 0

def hook(event, arguments):
    global sent
    if event in ("os.kill", "os.killpg"):
        return
    now = event == wanted and (any(str(a).endswith(name) for a in arguments) if name else type(arguments[0]) is int)
    if sent < times and (sent or now):
        sent += 1
        # Ctrl-C reaches the whole process group, SIGTERM from a scheduler a single process.
        os.killpg(0, number) if number == signal.SIGINT else os.kill(os.getpid(), number)

sys.addaudithook(hook)
from convkit.__main__ import main
main()
"""
WORKER_STARTED = ("open", "")  # the pipe, by its number, that sends a new worker its instructions
FOURTH_ROW = ("os.rename", "v_MoveLeft_g01_c01.0.jpg")


def _interrupted(
    at: tuple[str, str], number: int, clips: Path, out_dir: Path, *, workers: int = 2, times: int = 1
) -> tuple[int, str]:
    """Return exit code and standard error of a conversion that receives a signal at an instant."""
    options = ["--source", str(clips), "--out_dir", str(out_dir), "--workers", str(workers)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *at, str(int(number)), str(times), "convert", "ucf101", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # even if this process ignores it
    )
    return done.returncode, done.stderr


def _assert_resumes(clips: Path, out_dir: Path) -> None:
    assert (out_dir / ".partial/journal.jsonl").exists()
    run("ucf101", clips, out_dir)
    run("ucf101", clips, out_dir.with_name("undisturbed"))
    assert tree(out_dir) == tree(out_dir.with_name("undisturbed"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_converts(number: int, workers: int, clips: Path, tmp_path: Path) -> None:
    assert _interrupted(FOURTH_ROW, number, clips, tmp_path / "out", workers=workers) == (130, MESSAGE)
    _assert_resumes(clips, tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_repeated_interrupts(number: int, workers: int, clips: Path, tmp_path: Path) -> None:
    """One interrupt before each operation of Python, until the very end."""
    code, stderr = _interrupted(FOURTH_ROW, number, clips, tmp_path / "out", workers=workers, times=10_000)
    assert (code, stderr) == (130, MESSAGE)
    _assert_resumes(clips, tmp_path / "out")


def test_no_worker_survives_an_error(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "source", "ok", "reject", *["ok"] * 20)
    with pytest.raises(ConvkitError) as caught:
        run_lines(source, tmp_path / "out", workers=2, policy=Policy(budget=Budget(count=0)))
    assert multiprocessing.active_children() == []
    assert caught.tb is not None  # the frames and their objects are still alive here


def test_an_interrupt_as_soon_as_a_worker_exists(clips: Path, tmp_path: Path) -> None:
    """The worker is importing modules at that time, before its initializer."""
    assert _interrupted(WORKER_STARTED, signal.SIGINT, clips, tmp_path / "out") == (130, MESSAGE)


@pytest.mark.parametrize(
    "module",
    ["typer", "convkit.converters", "pydantic", "convkit.converters.video_folder", "convkit.convert.run", "fcntl"],
)
def test_an_interrupt_while_the_program_starts(module: str, clips: Path, tmp_path: Path) -> None:
    code, stderr = _interrupted(("import", module), signal.SIGINT, clips, tmp_path / "out")
    assert code in (130, -signal.SIGINT)  # the shell reports 130 for an end by the signal as well
    assert stderr in ("", MESSAGE)

"""An interrupt ends a conversion at once, with exit code 130, no traceback and nothing lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.convert.helpers import run, tree

SAID = "convkit: interrupted. Run the same command again to go on.\n"

AT_IMPORT = """
import os, signal, sys

wanted = sys.argv.pop(1)

def hook(event, arguments):
    if event == "import" and arguments[0] == wanted:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
from convkit.__main__ import main
main()
"""


def _command(clips: Path, out_dir: Path, workers: int = 2) -> list[str]:
    return ["convert", "ucf101", "--source", str(clips), "--out_dir", str(out_dir), "--workers", str(workers)]


def _usual_interrupt() -> None:
    """Whatever this process inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Conversion:
    """A conversion in a process group of its own, as a terminal makes one for a command."""

    def __init__(self, clips: Path, out_dir: Path, workers: int = 2) -> None:
        self.out_dir = out_dir
        self._process = subprocess.Popen(
            [sys.executable, "-m", "convkit", *_command(clips, out_dir, workers)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_usual_interrupt,
        )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something is so, or the process has ended."""
        while self._process.poll() is None and not condition():
            pass

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """As Ctrl-C does: the whole group gets the signal."""
        os.killpg(self._process.pid, number)

    def keep_interrupting(self) -> None:
        while self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self._process.terminate()

    def children(self) -> list[int]:
        """Its workers, by process id."""
        try:
            found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in found.split()]

    def end(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        _, said = self._process.communicate(timeout=60)
        return self._process.returncode, said


def _goes_on(clips: Path, out_dir: Path) -> None:
    run("ucf101", clips, out_dir)
    run("ucf101", clips, out_dir.with_name("undisturbed"))
    assert tree(out_dir) == tree(out_dir.with_name("undisturbed"))


def _begun(out_dir: Path) -> bool:
    return (out_dir / ".partial/journal.jsonl").exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_converts(number: int, workers: int, clips: Path, tmp_path: Path) -> None:
    conversion = Conversion(clips, tmp_path / "out", workers)
    conversion.wait_for(lambda: _begun(tmp_path / "out"))
    if number == signal.SIGINT:
        conversion.interrupt()
    else:
        conversion.terminate()
    assert conversion.end() == (130, SAID)
    _goes_on(clips, tmp_path / "out")


def test_an_interrupt_as_soon_as_a_worker_is_there(clips: Path, tmp_path: Path) -> None:
    """It is importing then: it has not come to its initializer."""
    conversion = Conversion(clips, tmp_path / "out")
    conversion.wait_for(lambda: len(conversion.children()) > 1)  # the first is the tracker of resources
    conversion.interrupt()
    assert conversion.end() == (130, SAID)


@pytest.mark.parametrize(
    "module", ["typer", "convkit.converters", "pydantic", "convkit.converters.video_folder", "convkit.convert", "fcntl"]
)
def test_an_interrupt_while_the_program_starts(module: str, clips: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, *_command(clips, tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_usual_interrupt,
    )
    assert done.returncode in (130, -signal.SIGINT)  # of an end by the signal, the shell makes 130 as well
    assert done.stderr in ("", SAID)


def test_interrupts_one_after_another(clips: Path, tmp_path: Path) -> None:
    conversion = Conversion(clips, tmp_path / "out")
    conversion.wait_for(lambda: _begun(tmp_path / "out"))
    conversion.keep_interrupting()
    assert conversion.end() == (130, SAID)
    _goes_on(clips, tmp_path / "out")

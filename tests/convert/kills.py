"""Conversions that are killed before one change of their output directory, and then resumed.

`python -m tests.convert.kills` is a process that has loaded the modules. It forks a process per conversion, because
starting an interpreter takes much longer than a small conversion.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from convkit.convert.run import convert
from convkit.converters.base import Converter, Options
from tests.conftest import ROOT
from tests.convert.helpers import tree


class Conversions:
    """Starts conversions in forked processes, for the time of a `with` statement."""

    def __init__(self, converter: type[Converter[Any]], options: Options, source: Path) -> None:
        command = [sys.executable, "-m", "tests.convert.kills", converter.__module__, converter.__name__]
        self._process = subprocess.Popen(
            [*command, options.model_dump_json(), str(source)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Conversions":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, out_dir: Path, kill_before: int) -> tuple[int, int]:
        """Convert and kill the process before a change; returns its exit status and the number of changes it made."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(out_dir), kill_before]) + "\n")
        self._process.stdin.flush()
        status, changes = json.loads(self._process.stdout.readline())
        return status, changes


def assert_resumes_after_kills(
    converter: type[Converter[Any]], options: Options, source: Path, folder: Path, *, first: int = 1, step: int = 1
) -> int:
    """Kill a conversion before each change of its directory, resume it, and compare all bytes.

    Args:
        folder: an empty folder for the output directories.
        first: the first change to kill before.
        step: kill before every `step`-th change.

    Returns:
        The number of changes of an undisturbed conversion.
    """
    convert(converter, str(source), options, folder / "undisturbed", workers=0)
    expected = tree(folder / "undisturbed")
    with Conversions(converter, options, source) as conversions:
        status, changes = conversions.start(folder / "counted", 0)
        assert status == 0
        assert tree(folder / "counted") == expected
        for change in range(first, changes + 1, step):
            out_dir = folder / f"killed-{change:02d}"
            assert conversions.start(out_dir, change) == (-signal.SIGKILL, change - 1)
            convert(converter, str(source), options, out_dir, workers=0)
            assert tree(out_dir) == expected, f"killed before change {change} of {changes}"
    return changes


def main(module: str, name: str, options: str, source: str) -> None:
    """Fork a conversion for each line of standard input, and answer with its exit status and number of changes."""
    converter = getattr(import_module(module), name)
    chosen = converter.Options.model_validate_json(options)
    for line in sys.stdin:
        out_dir, kill_before = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _convert_in_child(converter, chosen, source, out_dir, kill_before, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as changes:
            made = len(changes.read())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, made]), flush=True)


def _convert_in_child(converter: Any, options: Any, source: str, out_dir: str, kill_before: int, writer: int) -> None:
    """Convert, write one byte per change, and end the process."""
    made = 0

    def is_change(event: str, arguments: Iterable[Any]) -> bool:
        named = any(isinstance(a, str | os.PathLike) and os.fspath(a).startswith(out_dir) for a in arguments)
        return (named and event.startswith(("open", "os.", "shutil."))) or event in ("os.remove", "os.rmdir")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # Python calls this before it opens, renames or removes anything.
        nonlocal made
        if is_change(event, arguments):
            made += 1
            if made == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(writer, b".")

    sys.addaudithook(hook)
    try:
        convert(converter, source, options, Path(out_dir), workers=0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

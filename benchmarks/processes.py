"""Run Python in fresh processes, and measure wall time and peak memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def seconds(*arguments: str) -> float:
    """Return the wall time of `python ARGUMENTS`, start-up included. Pending disk writes are flushed before.

    Raises:
        RuntimeError: the process failed; the message contains its output.
    """
    os.sync()
    began = time.perf_counter()
    _run(arguments)
    return time.perf_counter() - began


def json_output(*arguments: str) -> Any:
    """Run `python ARGUMENTS`, and return its output parsed as JSON."""
    return json.loads(_run(arguments))


def _run(arguments: tuple[str, ...]) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Return the environment with this checkout on PYTHONPATH, unless it is set already."""
    return {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT)}


def peak_mib(pid: int | None = None) -> float:
    """Return the peak resident memory of a process in MiB, or 0 if it has ended (Linux only).

    `getrusage` is not used, since its peak may be that of the parent process.
    """
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def children(pid: int | str = "self") -> list[int]:
    """Return the running child processes of a process, and their children (Linux only)."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):  # it ended a moment ago
        return []
    own = [int(child) for each in lists for child in each.split()]
    return own + [below for child in own for below in children(child)]

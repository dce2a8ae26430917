"""Fresh processes and what they cost: wall time from outside, peak memory from inside."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def seconds(*arguments: str) -> float:
    """Wall time of `python ARGUMENTS`, start-up included; the disk is idle when it begins.

    Raises:
        RuntimeError: the process failed; the message holds what it wrote.
    """
    os.sync()
    begun = time.perf_counter()
    _run(arguments)
    return time.perf_counter() - begun


def answer(*arguments: str) -> Any:
    """What `python ARGUMENTS` prints, read as JSON."""
    return json.loads(_run(arguments))


def _run(arguments: tuple[str, ...]) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=_environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """This checkout, unless PYTHONPATH names another."""
    return {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT)}


def peak_mib(pid: int | None = None) -> float:
    """Peak resident memory of a process, in MiB; 0 if it is gone.

    Linux only. `getrusage` would not do: its peak may be that of the process that started this one.
    """
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def children(pid: int | str = "self") -> list[int]:
    """The processes that one has started, itself or through others, and that have not ended (Linux only)."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):  # it ended a moment ago
        return []
    own = [int(child) for each in lists for child in each.split()]
    return own + [below for child in own for below in children(child)]

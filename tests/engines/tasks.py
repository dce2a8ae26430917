"""Tasks for worker processes, which import them by name."""

import os
import signal
import sys
from pathlib import Path


def double(item: int) -> int:
    return 2 * item


def process_id(item: int) -> int:
    return os.getpid()


def fail_at_five(item: int) -> int:
    if item == 5:
        raise ValueError("five")
    return item


def die_at_sevens(item: int) -> int:
    """Kill the worker at 7, 17, 27, ..."""
    if item % 10 == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_once(item: tuple[int, str]) -> int:
    """Kill the worker at 3, but only the first time."""
    number, flag = item
    if number == 3 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_at_1500(item: int) -> int:
    """The process id, or none."""
    if item == 1500:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def is_loaded(item: str) -> bool:
    """Whether a module is."""
    return item in sys.modules

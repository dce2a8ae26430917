"""Tasks for worker processes, which import them by name."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
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
    """Return the process id, but kill the worker at 1500."""
    if item == 1500:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def is_loaded(item: str) -> bool:
    """Return whether a module is loaded."""
    return item in sys.modules


def never_send_all(item: str) -> str:
    """Send half of the result, then open the named FIFO and stop; an empty name is sent normally."""
    if item:

        def rest() -> None:
            Path(item).open("wb").close()
            signal.pause()

        _send_half(rest)
    return item


def die_sending_sevens(item: int) -> int:
    """Kill the worker halfway through sending the result at 7, 17, 27, ..."""
    if item % 10 == 7:
        _send_half(lambda: os.kill(os.getpid(), signal.SIGKILL))
    return item


def _send_half(rest: Callable[[], None]) -> None:
    def send(connection: Connection, data: bytes) -> None:
        os.write(connection.fileno(), data[: len(data) // 2])
        rest()

    Connection._send = send  # type: ignore[attr-defined]

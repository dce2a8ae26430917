"""Data-loading processes: no error of the run leaves them behind, and their own end is reported."""

import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import repeat

import pytest

from convkit.errors import ConvkitError
from convkit.train.data.loader import batches, worker_errors

UNFORESEEN = """
from itertools import repeat
from convkit.train.data.loader import batches

def steps():
    stream = batches(["batch"], repeat(0), 2)
    next(stream)
    raise ZeroDivisionError

steps()
"""
"""Python keeps the traceback until it exits; the traceback keeps the stream and its workers alive."""


def test_an_unexpected_error_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", UNFORESEEN], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch raises for the same worker again
def test_a_killed_worker_is_reported() -> None:
    with (
        pytest.raises(ConvkitError, match=r"DataLoader worker .* --dataloader_num_workers.* /dev/shm"),
        worker_errors(),
    ):
        stream = batches(["batch"], repeat(0), 1)  # type: ignore[arg-type]
        next(stream)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        for _ in stream:
            pass

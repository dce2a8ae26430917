"""Worker processes that read images: no error of the run leaves them behind, and none of theirs goes unnamed."""

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
"""The traceback, which Python keeps to the end, keeps the stream, and that its workers."""


def test_an_unforeseen_error_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", UNFORESEEN], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch, of the same worker again
def test_a_worker_that_is_killed_is_named() -> None:
    with (
        pytest.raises(ConvkitError, match=r"DataLoader worker .* --dataloader_num_workers.* /dev/shm"),
        worker_errors(),
    ):
        stream = batches(["batch"], repeat(0), 1)  # type: ignore[arg-type]
        next(stream)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        for _ in stream:
            pass

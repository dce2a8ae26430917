"""The exit code of a run that `--nproc` starts; torchrun itself is replaced."""

import logging
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from convkit.train.distributed.launch import launch


def failed(*exit_codes: int) -> ChildFailedError:
    """Return torchrun's error for processes that failed one after the other."""
    error = ChildFailedError.__new__(ChildFailedError)
    failures: Any = {rank: SimpleNamespace(exitcode=code, timestamp=rank) for rank, code in enumerate(exit_codes)}
    error.failures = failures
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (failed(2, -9), 2),
        (failed(-9, 2), 2),
        (failed(143), 143),
        (SignalException("stopped", signal.SIGTERM), 143),
    ],
    ids=["done", "error", "killed", "stopped", "signal"],
)
def test_the_exit_code_is_that_of_the_first_failed_process(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, code: int
) -> None:
    started: list[Any] = []

    def start(options: Any) -> None:
        started.append(options)
        if error:
            raise error

    for name in ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(logging.getLogger("torch.distributed"), "setLevel", lambda level: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(run, "run", start)
    assert launch(2, ["train", "--nproc", "2"]) == code
    (options,) = started
    assert (options.nproc_per_node, options.training_script) == ("2", "convkit")
    assert options.training_script_args == ["train", "--nproc", "2"]

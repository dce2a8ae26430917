"""Joining the other processes of a run."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from convkit.errors import ConvkitError
from convkit.train import distributed, last_words
from tests.train.processes import ENVIRONMENT, meeting

ENDED_BY_THE_FIRST = """
from convkit.errors import ConvkitError
from convkit.train.distributed import world
try:
    with world() as joined:
        import peft  # which brings all of torch.distributed along
        joined.wait()
        if joined.first:
            raise ConvkitError("the disk is full")
        joined.wait()
except ConvkitError as error:
    print(error)
"""


def test_the_others_say_why_the_first_process_ended() -> None:
    common = {**os.environ, **ENVIRONMENT, **meeting(2)}
    command = [sys.executable, "-c", ENDED_BY_THE_FIRST]
    processes = [
        subprocess.Popen(command, env={**common, "RANK": rank}, stdout=subprocess.PIPE, text=True) for rank in "01"
    ]
    said = [process.communicate()[0].strip() for process in processes]
    assert said == ["the disk is full", "Process 0 ended the run: the disk is full"]


WAITS_FOR_EVER = """
import os, signal, threading
from convkit.errors import ConvkitError
from convkit.train import last_words
from convkit.train.distributed import world
last_words._LOOK = last_words._GRACE = 0.05
with world() as joined:
    if joined.first:
        threading.Event().wait()  # as NCCL does for a message that never comes
    if {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConvkitError("no room on the GPU")
"""


@pytest.mark.parametrize(
    ("killed", "word", "statuses"),
    [
        (False, "Process 1 ended the run: no room on the GPU", [2, 1]),
        (True, last_words.GONE, [2, -9]),
    ],
)
def test_a_process_that_waits_for_ever_ends_with_one_that_failed_or_was_killed(
    killed: bool, word: str, statuses: list[int]
) -> None:
    common = {**os.environ, **ENVIRONMENT, **meeting(2)}
    command = [sys.executable, "-c", WAITS_FOR_EVER.format(killed=killed)]
    processes = [
        subprocess.Popen(command, env={**common, "RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
    ]
    said = [process.communicate(timeout=120)[1].strip() for process in processes]
    assert said[0] == f"convkit: error: {word}"
    assert [process.returncode for process in processes] == statuses


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}])
def test_half_of_what_torchrun_sets_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConvkitError, match=r"cannot find each other: .* unset WORLD_SIZE"), distributed.world():
        pass


def test_the_first_process_may_read_all_rows_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    monkeypatch.setattr(distributed, "rendezvous", lambda *_: iter([(store, 0, 2)]))
    monkeypatch.setattr(distributed, "leave", lambda *_: None)  # of others, of whom there are none
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **options: begun.update(options))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with distributed.world() as joined:
        assert (joined.rank, joined.size) == (0, 2)
    assert begun["timeout"] >= timedelta(hours=12)
    assert store.timeout == begun["timeout"]  # NCCL's first message waits for what lies there

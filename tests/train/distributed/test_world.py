"""Joining the other processes of a run."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from convkit.errors import ConvkitError
from convkit.train.distributed import failure, world
from tests.train.helpers.processes import ENVIRONMENT, meeting

ENDED_BY_THE_FIRST = """
from convkit.train.distributed import failure
failure._POLL_S = 0.01
from convkit.errors import ConvkitError
from convkit.train.distributed.world import world
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


BESIDE = """
import os, signal, threading, uuid
from datetime import timedelta
from convkit.errors import ConvkitError
from convkit.train.distributed import failure
from convkit.train.distributed.world import world
failure._POLL_S, failure._SIGN_OFF_TIMEOUT = 0.01, timedelta(0)
{setup}
with world() as joined:
    joined.wait()
    if joined.rank == {waits}:
        failure._GRACE_S = 0.05
        {wait}
    else:
        {other}
print("done")
"""
FAILED, KILLED = 'raise ConvkitError("no room on the GPU")', "os.kill(os.getpid(), signal.SIGKILL)"
FOR_EVER = "threading.Event().wait()  # as NCCL does for a message that never comes"
A_WHILE = "threading.Event().wait(0.5)  # many looks, and the grace many times over"
WRITES = f"""
        with failure.WRITE_LOCK:
            {A_WHILE}
            print("written", flush=True)
        {FOR_EVER}
"""


def beside(other: str, wait: str = FOR_EVER, waits: int = 0, setup: str = "") -> tuple[str, int, int]:
    """What a process says, and its exit code, that waits while another one does something; and that one's code."""
    common = {**os.environ, **ENVIRONMENT, **meeting(2)}
    command = [sys.executable, "-c", BESIDE.format(other=other, wait=wait, waits=waits, setup=setup)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env={**common, "RANK": rank}, **pipes) for rank in "01"]
    said = ["".join(process.communicate(timeout=120)) for process in processes]
    return said[waits].strip(), processes[waits].returncode, processes[1 - waits].returncode


@pytest.mark.parametrize("setup", ["", "del os.pidfd_open"])
def test_a_process_that_waits_for_ever_ends_with_the_word_of_one_that_failed(setup: str) -> None:
    """Also where it cannot be seen whether another one was killed."""
    assert beside(FAILED, setup=setup) == ("convkit: error: Process 1 ended the run: no room on the GPU", 2, 1)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_process_that_waits_for_ever_ends_with_one_that_was_killed(waits: int) -> None:
    """Also with the first one, which has the store."""
    said, code, killed = beside(KILLED, waits=waits)
    assert said.endswith(f"convkit: error: {failure.PEER_LOST}")  # torch complains of a lost store before
    assert (code, killed) == (2, -9)


@pytest.mark.parametrize(
    ("other", "setup", "code"),
    [
        ("pass", "", 0),
        (KILLED, "failure._host_id = lambda: str(uuid.uuid4())", -9),
        (KILLED, "del os.pidfd_open", -9),
    ],
)
def test_a_process_is_left_alone_by_one_that_ended_well_or_cannot_be_seen(other: str, setup: str, code: int) -> None:
    said, own, theirs = beside(other, A_WHILE, setup=setup)
    assert said.startswith("done")  # torch complains of a connection that is lost after it
    assert (own, theirs) == (0, code)


def test_what_is_being_written_is_written_first() -> None:
    said, code, _ = beside(KILLED, WRITES)
    assert said.splitlines() == ["written", f"convkit: error: {failure.PEER_LOST}"]
    assert code == 2


def test_what_an_earlier_try_left_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the store of torchrun, which starts processes once more."""
    monkeypatch.setattr(dist, "broadcast_object_list", lambda _: None)
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    earlier, now = (world._attempt_store(store) for _ in range(2))
    failure.report_failure(earlier, "the disk is full")
    assert failure.reported_failure(earlier) == "the disk is full"
    assert not now.check([failure._FAILURE])


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}])
def test_half_of_what_torchrun_sets_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConvkitError, match=r"cannot find each other: .* unset WORLD_SIZE"), world.world():
        pass


def test_the_first_process_may_read_all_rows_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    monkeypatch.setattr(world, "rendezvous", lambda *_: iter([(store, 0, 2)]))
    monkeypatch.setattr(world, "sign_off", lambda *_: None)  # of others, of whom there are none
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **options: begun.update(options))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda _: None)
    with world.world() as joined:
        assert (joined.rank, joined.size) == (0, 2)
    assert begun["timeout"] >= timedelta(hours=12)
    assert store.timeout == begun["timeout"]  # NCCL's first message waits for what lies there

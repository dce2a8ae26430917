"""Joining the process group, and failures of other ranks."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from convkit.errors import ConvkitError
from convkit.train.distributed import failure, world
from tests.train.helpers.forks import Forks
from tests.train.helpers.processes import ENVIRONMENT, join_variables

RANK_0_FAILS = """
from convkit.train.distributed import failure
failure._POLL_S = 0.01
from convkit.errors import ConvkitError
from convkit.train.distributed.world import world
try:
    with world() as joined:
        import peft  # which imports all of torch.distributed
        joined.wait()
        if joined.first:
            raise ConvkitError("the disk is full")
        joined.wait()
except ConvkitError as error:
    print(error)
"""


@pytest.mark.slow
def test_other_ranks_report_why_rank_0_ended_in_new_processes() -> None:
    common = {**os.environ, **ENVIRONMENT, **join_variables(2)}
    command = [sys.executable, "-c", RANK_0_FAILS]
    processes = [
        subprocess.Popen(command, env={**common, "RANK": rank}, stdout=subprocess.PIPE, text=True) for rank in "01"
    ]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert outputs == ["the disk is full", "Process 0 ended the run: the disk is full"]


def test_other_ranks_report_why_rank_0_ended(forks: Forks, tmp_path: Path) -> None:
    ranks = forks("scripts", RANK_0_FAILS, tmp_path, folder=tmp_path)
    assert [rank["output"].strip() for rank in ranks] == [
        "the disk is full",
        "Process 0 ended the run: the disk is full",
    ]


ONE_WAITS = """
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
FAIL, KILL = 'raise ConvkitError("no room on the GPU")', "os.kill(os.getpid(), signal.SIGKILL)"
WAIT_FOREVER = "threading.Event().wait()  # as NCCL does for a message that never comes"
WAIT = "threading.Event().wait(0.5)  # many polls, and many times the grace period"
WRITE = f"""
        with failure.WRITE_LOCK:
            {WAIT}
            print("written", flush=True)
        {WAIT_FOREVER}
"""


def one_waits(
    forks: Forks, folder: Path, other: str, wait: str = WAIT_FOREVER, waits: int = 0, setup: str = ""
) -> tuple[str, int, int]:
    """Run two ranks, of which one waits; return its output, its exit code, and the exit code of the other."""
    script = ONE_WAITS.format(other=other, wait=wait, waits=waits, setup=setup)
    ranks = forks("scripts", script, folder, folder=folder)
    return ranks[waits]["output"].strip(), ranks[waits]["code"], ranks[1 - waits]["code"]


@pytest.mark.parametrize("setup", ["", "del os.pidfd_open"])
def test_a_waiting_rank_ends_with_the_report_of_a_failed_one(forks: Forks, tmp_path: Path, setup: str) -> None:
    """This works without process handles as well."""
    assert one_waits(forks, tmp_path, FAIL, setup=setup) == (
        "convkit: error: Process 1 ended the run: no room on the GPU",
        2,
        1,
    )


@pytest.mark.parametrize("waits", [0, 1])
def test_a_waiting_rank_ends_when_another_one_is_killed(forks: Forks, tmp_path: Path, waits: int) -> None:
    """This includes rank 0, which hosts the store."""
    output, code, killed = one_waits(forks, tmp_path, KILL, waits=waits)
    assert output.endswith(f"convkit: error: {failure.PEER_LOST}")  # torch warns about a lost store before
    assert (code, killed) == (2, -9)


@pytest.mark.parametrize(
    ("other", "setup", "code"),
    [
        ("pass", "", 0),
        (KILL, "failure._host_id = lambda: str(uuid.uuid4())", -9),
        (KILL, "del os.pidfd_open", -9),
    ],
)
def test_a_rank_is_not_ended_if_the_other_finished_or_cannot_be_watched(
    forks: Forks, tmp_path: Path, other: str, setup: str, code: int
) -> None:
    output, own, theirs = one_waits(forks, tmp_path, other, WAIT, setup=setup)
    assert output.startswith("done")  # torch warns about a lost connection after it
    assert (own, theirs) == (0, code)


def test_a_rank_finishes_writing_before_it_is_ended(forks: Forks, tmp_path: Path) -> None:
    output, code, _ = one_waits(forks, tmp_path, KILL, WRITE)
    assert output.splitlines() == ["written", f"convkit: error: {failure.PEER_LOST}"]
    assert code == 2


def test_the_report_of_an_earlier_attempt_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun keeps the store when it restarts the processes."""
    monkeypatch.setattr(dist, "broadcast_object_list", lambda _: None)
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    earlier, now = (world._attempt_store(store) for _ in range(2))
    failure.report_failure(earlier, "the disk is full")
    assert failure.reported_failure(earlier) == "the disk is full"
    assert not now.check([failure._FAILURE])


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two"}])
def test_incomplete_variables_of_torchrun_are_explained(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConvkitError, match=r"cannot find each other: .* unset WORLD_SIZE"), world.world():
        pass


def test_ranks_wait_for_hours_while_rank_0_reads_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    monkeypatch.setattr(world, "rendezvous", lambda *_: iter([(store, 0, 2)]))
    monkeypatch.setattr(world, "sign_off", lambda *_: None)  # there are no other ranks
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **given: options.update(given))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda _: None)
    with world.world() as joined:
        assert (joined.rank, joined.size) == (0, 2)
    assert options["timeout"] >= timedelta(hours=12)
    assert store.timeout == options["timeout"]  # NCCL's first message waits for the store

"""Runs of two processes, some of which are killed or come to grief."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch

from convkit.errors import ConvkitError
from convkit.train import run, trainer
from convkit.train.distributed.world import world
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers.kills import CHECKPOINT, count_events, fork
from tests.train.helpers.processes import meeting
from tests.train.helpers.runs import config

RANKS = 2
PATIENCE = 120
"""Seconds, after which a process counts as hanging."""


def job(dataset: str, checkpoint: str, scratch: str, *runs: dict[str, Any]) -> list[Any]:
    """Do runs in turn.

    Args:
        dataset: where it lies, as do the others.
        runs: `{"name": …, "options": …, "kill": "all" or "one", "at": part of the first run's events, "fault": …}`.

    Returns:
        For each run what became of its processes: exit status, the events that it saw, what it said, in earlier runs of
        that name too, and the error that it ended with.
    """
    family = Phi3VFamily(Path(checkpoint), num_crops=1)
    told: list[Any] = []
    for wanted in runs:
        variables = meeting(RANKS)
        paths = (Path(dataset), Path(checkpoint), Path(scratch))
        children: list[int] = []
        for rank in range(RANKS):
            children.append(_start(rank, variables, _placed(wanted, told, rank), paths, family))
            os.setpgid(children[-1], children[0])  # so that all can be killed at once
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        told.append([{"status": status, **_seen(paths[2], wanted, rank)} for rank, status in enumerate(statuses)])
    return told


def _placed(wanted: dict[str, Any], told: list[Any], rank: int) -> dict[str, Any]:
    """With the number of the event that a process is to be killed at; the first one, between two checkpoints."""
    if (wanted.get("kill"), rank) not in {("all", 0), ("one", RANKS - 1)}:
        return {**wanted, "at": -1, "after": 0}
    events = told[0][rank]["events"]
    room = events.rindex(CHECKPOINT) - events.index(CHECKPOINT) - 1 if rank == 0 else len(events)
    return {**wanted, "at": 1 + int(wanted["at"] * room), "after": int(rank == 0)}


def _start(
    rank: int,
    variables: dict[str, str],
    wanted: dict[str, Any],
    paths: tuple[Path, Path, Path],
    family: Phi3VFamily,
) -> int:
    dataset, checkpoint, scratch = paths
    child = fork()
    if child:
        return child
    signal.alarm(PATIENCE)
    os.environ |= {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    scratch.mkdir(exist_ok=True)
    kill = _kill_all if wanted.get("kill") == "all" else None
    count_events(scratch / f"{wanted['name']}.{rank}.events", wanted["at"], wanted["after"], kill)
    if "fault" in wanted and rank == RANKS - 1:
        _spoil(wanted["fault"], dataset)
    said = scratch / f"{wanted['name']}.{rank}.said"
    try:
        with world() as joined, said.open("a") as file:
            chosen = config(dataset, checkpoint, scratch / wanted["name"], **wanted["options"])
            run.train(chosen, family, joined, log=lambda text: print(text, file=file, flush=True))
    except ConvkitError as error:
        said.open("a").write(f"error: {error}\n")
        os._exit(2)
    os._exit(0)


def _kill_all() -> None:
    os.killpg(0, signal.SIGKILL)


def _spoil(fault: str, dataset: Path) -> None:
    """Let something go wrong in this process after the preflight."""
    step = trainer.Trainer.step

    def spoilt(self: trainer.Trainer, number: int, *arguments: Any) -> Any:
        if number == 2:
            forward_backward = trainer.Trainer.forward_backward
            if fault == "image":
                shutil.rmtree(dataset / "images")
            elif fault == "memory":
                trainer.Trainer.forward_backward = _no_memory  # type: ignore[method-assign]
            else:
                trainer.Trainer.forward_backward = (  # type: ignore[method-assign]
                    lambda *args, **kwargs: forward_backward(*args, **kwargs) * float("nan")
                )
        return step(self, number, *arguments)

    trainer.Trainer.step = spoilt  # type: ignore[assignment,method-assign]


def _no_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def _seen(scratch: Path, wanted: dict[str, Any], rank: int) -> dict[str, Any]:
    events, said = (scratch / f"{wanted['name']}.{rank}.{kind}" for kind in ("events", "said"))
    return {"events": events.read_text(), "said": said.read_text() if said.exists() else ""}

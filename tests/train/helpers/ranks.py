"""Runs of two ranks, some of which are killed or fail."""

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
from tests.train.helpers.processes import join_variables
from tests.train.helpers.runs import config

RANKS = 2
TIMEOUT_S = 120
"""Seconds after which a rank counts as hanging."""


def job(dataset: str, checkpoint: str, scratch: str, *runs: dict[str, Any]) -> list[Any]:
    """Do runs one after the other.

    Args:
        dataset: path of the dataset; the other arguments are paths, too.
        runs: `{"name": …, "options": …, "kill": "all" or "one", "at": part of the first run's events, "fault": …}`.

    Returns:
        For each run, the exit status, the events and the log of each rank. The log includes earlier runs of that name
        and the final error.
    """
    family = Phi3VFamily(Path(checkpoint), num_crops=1)
    reports: list[Any] = []
    for wanted in runs:
        variables = join_variables(RANKS)
        paths = (Path(dataset), Path(checkpoint), Path(scratch))
        children: list[int] = []
        for rank in range(RANKS):
            children.append(_start(rank, variables, _with_kill(wanted, reports, rank), paths, family))
            os.setpgid(children[-1], children[0])  # so that all can be killed at once
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        reports.append([{"status": status, **_report(paths[2], wanted, rank)} for rank, status in enumerate(statuses)])
    return reports


def _with_kill(wanted: dict[str, Any], reports: list[Any], rank: int) -> dict[str, Any]:
    """Add the number of the event at which a rank is killed; rank 0 is killed between two checkpoints."""
    if (wanted.get("kill"), rank) not in {("all", 0), ("one", RANKS - 1)}:
        return {**wanted, "at": -1, "after": 0}
    events = reports[0][rank]["events"]
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
    signal.alarm(TIMEOUT_S)
    os.environ |= {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    scratch.mkdir(exist_ok=True)
    kill = _kill_all if wanted.get("kill") == "all" else None
    count_events(scratch / f"{wanted['name']}.{rank}.events", wanted["at"], wanted["after"], kill)
    if "fault" in wanted and rank == RANKS - 1:
        _inject(wanted["fault"], dataset)
    log = scratch / f"{wanted['name']}.{rank}.log"
    try:
        with world() as joined, log.open("a") as file:
            chosen = config(dataset, checkpoint, scratch / wanted["name"], **wanted["options"])
            run.train(chosen, family, joined, log=lambda text: print(text, file=file, flush=True))
    except ConvkitError as error:
        log.open("a").write(f"error: {error}\n")
        os._exit(2)
    os._exit(0)


def _kill_all() -> None:
    os.killpg(0, signal.SIGKILL)


def _inject(fault: str, dataset: Path) -> None:
    """Inject a fault into this rank, after the preflight."""
    step = trainer.Trainer.step

    def step_with_fault(self: trainer.Trainer, number: int, *arguments: Any) -> Any:
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

    trainer.Trainer.step = step_with_fault  # type: ignore[assignment,method-assign]


def _no_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def _report(scratch: Path, wanted: dict[str, Any], rank: int) -> dict[str, Any]:
    events, log = (scratch / f"{wanted['name']}.{rank}.{kind}" for kind in ("events", "log"))
    return {"events": events.read_text(), "log": log.read_text() if log.exists() else ""}

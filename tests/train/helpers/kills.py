"""Killed runs: one run without interruption, and one that is killed three times and resumed."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convkit.train import run, trainer
from convkit.train.checkpoint import store as checkpoints
from convkit.train.evaluate.generate import Generator
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers.runs import ONE, config

CHECKPOINT = "c"
"""The event after which a checkpoint exists: its rename into place."""


def job(dataset: str, checkpoint: str, scratch: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Run each in a process of its own; return their events and the log of the last one."""
    out, chance = Path(scratch), random.Random(seed)
    family = Phi3VFamily(Path(checkpoint), num_crops=1)

    def train(name: str, kill_at: int = -1, after: int = 0) -> str:
        """Train in a process of its own; return the events until its end."""
        counter = out / f"{name}.events"
        child = fork()
        if not child:
            count_events(counter, kill_at, after)
            chosen = config(Path(dataset), Path(checkpoint), out / name, resume="auto", **options)
            with (out / f"{name}.log").open("w") as file:
                run.train(chosen, family, ONE, log=lambda text: print(text, file=file, flush=True))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == (signal.SIGKILL if kill_at >= 0 else 0), status
        return counter.read_text()

    whole = train("undisturbed")
    first, last = whole.index(CHECKPOINT), whole.rindex(CHECKPOINT)
    early = train("killed", chance.randrange(1, first + 1))
    # Counted from the first checkpoint: before it, a second start syncs more files.
    late = train("killed", chance.randrange(1, last - first), after=1)
    left = len(whole) - first - len(late.partition(CHECKPOINT)[2])
    again = train("killed", chance.randrange(1, left))
    train("killed")
    return {"events": whole, "killed": [early, late, again], "log": (out / "killed.log").read_text()}


def fork() -> int:
    """Fork, and set up torch's threads in the child.

    torch creates them on first use in a new process; when two threads did that at once, one got an error (torch 2.13).
    """
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
    return child


def count_events(counter: Path, kill_at: int, after: int = 0, kill: Callable[[], None] | None = None) -> None:
    """Write one character per event, and kill the process before one of them.

    Events are micro-batches trained on, batches answered, files synced, and renames.

    Args:
        kill_at: number of the event, counted from 1; -1 for none.
        after: number of checkpoints after which counting begins.
        kill: kills; by default, this process.
    """
    file, rename, saved, counts = counter.open("wb", buffering=0), Path.rename, 0, 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal saved, counts
            saves = function is rename and _is_checkpoint(Path(args[1]))
            file.write(CHECKPOINT.encode() if saves else b".")
            counts += saved >= after
            if counts == kill_at:
                kill() if kill else os.kill(os.getpid(), signal.SIGKILL)
            saved += saves
            return function(*args, **kwargs)

        return wrapper

    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    trainer.Trainer.forward_backward = counted(trainer.Trainer.forward_backward)  # type: ignore[method-assign]
    Generator.__call__ = counted(Generator.__call__)  # type: ignore[method-assign]
    torch.optim.AdamW.step = counted(torch.optim.AdamW.step)  # type: ignore[method-assign]


def _is_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint of the run, not that of the dry run."""
    return path.name.startswith("step-") and not path.parents[1].name.startswith(checkpoints.CHECK_PREFIX)

"""Runs that are killed: one without a disturbance, and one that is killed three times and resumed."""

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
"""Of the events, the one after which a checkpoint is there: its rename into place."""


def job(dataset: str, checkpoint: str, scratch: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Each run is a process of its own; returns their events, and what the last one said."""
    out, chance = Path(scratch), random.Random(seed)
    family = Phi3VFamily(Path(checkpoint), num_crops=1)

    def train(name: str, kill_at: int = -1, after: int = 0) -> str:
        """In a process of its own; returns the events that it lived to see, killed or not."""
        counter = out / f"{name}.events"
        child = fork()
        if not child:
            count_events(counter, kill_at, after)
            chosen = config(Path(dataset), Path(checkpoint), out / name, resume="auto", **options)
            with (out / f"{name}.said").open("w") as said:
                run.train(chosen, family, ONE, log=lambda text: print(text, file=said, flush=True))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == (signal.SIGKILL if kill_at >= 0 else 0), status
        return counter.read_text()

    whole = train("undisturbed")
    first, last = whole.index(CHECKPOINT), whole.rindex(CHECKPOINT)
    early = train("killed", chance.randrange(1, first + 1))
    # Counted from its own first checkpoint, before which a second start has more files to sync.
    late = train("killed", chance.randrange(1, last - first), after=1)
    left = len(whole) - first - len(late.partition(CHECKPOINT)[2])
    again = train("killed", chance.randrange(1, left))
    train("killed")
    return {"events": whole, "killed": [early, late, again], "said": (out / "killed.said").read_text()}


def fork() -> int:
    """`os.fork`, after which several threads may ask torch for its own at once.

    It makes these anew when it is first asked for them in the new process; of two threads that asked together, one was
    told that there are none (torch 2.13).
    """
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
    return child


def count_events(counter: Path, kill_at: int, after: int = 0, kill: Callable[[], None] | None = None) -> None:
    """Note micro-batches trained on, batches answered, files synced and renamed; die before the one of a number.

    Args:
        kill_at: that number, -1 for none.
        after: of checkpoints; counting begins after so many of them.
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
    """Whether it is one to go on from, not that of the trial before the first step."""
    return path.name.startswith("step-") and not path.parents[1].name.startswith(checkpoints.CHECK_PREFIX)

"""Runs that are killed: one without a disturbance, and one that is killed twice and resumed."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from convkit.train import loop, run
from convkit.train.generate import Generator
from convkit.train.models.phi3_v.adapter import Phi3VAdapter
from tests.train.runs import ONE, config


def job(dataset: str, checkpoint: str, scratch: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Each run is a process of its own; returns after how many of all its events it was killed."""
    out, chance = Path(scratch), random.Random(seed)
    adapter = Phi3VAdapter(Path(checkpoint), num_crops=1)

    def train(name: str, kill_at: int = -1, resume: str = "no") -> int:
        """In a process of its own; returns how many events it lived to see, killed or not."""
        counter = out / f"{name}.events"
        child = fork()
        if not child:
            count_events(counter, kill_at)
            chosen = config(Path(dataset), Path(checkpoint), out / name, resume=resume, **options)
            run.train(chosen, adapter, ONE, say=lambda text: None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == (signal.SIGKILL if kill_at >= 0 else 0), status
        return counter.stat().st_size

    events = train("undisturbed")
    first = chance.randrange(1, events // 2)
    second = chance.randrange(1, events // 2)
    killed = [train("killed", first), train("killed", second, "auto")]
    train("killed", resume="auto")
    return {"events": events, "killed": killed}


def fork() -> int:
    """`os.fork`, after which several threads may ask torch for its own at once.

    It makes these anew when it is first asked for them in the new process; of two threads that asked together, one was
    told that there are none (torch 2.13).
    """
    child = os.fork()
    if not child:
        torch.set_num_threads(1)
    return child


def count_events(counter: Path, kill_at: int, kill: Callable[[], None] | None = None) -> None:
    """Count packs trained on, batches answered, files synced and renamed; die before the one of a number."""
    file = counter.open("wb", buffering=0)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if file.write(b".") and file.tell() == kill_at:
                kill() if kill else os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    loop.Trainer.forward_backward = counted(loop.Trainer.forward_backward)  # type: ignore[method-assign]
    Generator.__call__ = counted(Generator.__call__)  # type: ignore[method-assign]
    torch.optim.AdamW.step = counted(torch.optim.AdamW.step)  # type: ignore[method-assign]

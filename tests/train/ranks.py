"""Runs of two processes: `python -m tests.train.ranks DATASET CHECKPOINT SCRATCH RUNS`, where RUNS is a list of
`{"name": …, "options": …, "kill": "all", "one" or none, "at": number of the event}`.

Prints for each run what became of its processes: exit status, how many events it saw, the error it ended with. A
process of its own, which forks those of each run: loading the libraries takes longer than training.
"""

import importlib.util
import json
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from convkit.errors import ConvkitError
from convkit.train import run
from convkit.train.distributed import world
from convkit.train.models.phi3_v.adapter import Phi3VAdapter
from tests.train.kills import count_events
from tests.train.runs import config

RANKS = 2
PATIENCE = 120
"""Seconds, after which a process counts as hanging."""


def main() -> None:
    dataset, checkpoint, scratch = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    adapter = Phi3VAdapter(checkpoint, num_crops=1)
    if importlib.util.find_spec("deepspeed"):
        warnings.simplefilter("ignore")
        importlib.import_module("deepspeed")
    told = []
    for wanted in json.loads(sys.argv[4]):
        port = _free_port()
        children = [_start(rank, port, wanted, (dataset, checkpoint, scratch), adapter) for rank in range(RANKS)]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        told.append([{"status": status, **_seen(scratch, wanted, rank)} for rank, status in enumerate(statuses)])
    print(json.dumps(told))


def _start(rank: int, port: int, wanted: dict[str, Any], paths: tuple[Path, Path, Path], adapter: Phi3VAdapter) -> int:
    dataset, checkpoint, scratch = paths
    child = os.fork()
    if child:
        return child
    signal.alarm(PATIENCE)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    scratch.mkdir(exist_ok=True)
    at = wanted.get("at", -1) if rank == RANKS - 1 or wanted.get("kill") == "all" else -1
    count_events(scratch / f"{wanted['name']}.{rank}.events", at)
    said = scratch / f"{wanted['name']}.{rank}.said"
    try:
        with world() as joined, said.open("a") as file:
            chosen = config(dataset, checkpoint, scratch / wanted["name"], **wanted["options"])
            run.train(chosen, adapter, joined, say=lambda text: print(text, file=file, flush=True))
    except ConvkitError as error:
        said.open("a").write(f"error: {error}\n")
        os._exit(2)
    os._exit(0)


def _seen(scratch: Path, wanted: dict[str, Any], rank: int) -> dict[str, Any]:
    events, said = (scratch / f"{wanted['name']}.{rank}.{kind}" for kind in ("events", "said"))
    return {"events": events.stat().st_size, "said": said.read_text() if said.exists() else ""}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    main()

"""Data-loader workers ignore the SIGTERM that a scheduler sends to every process of a job."""

import multiprocessing
import os
import signal
from queue import Queue
from typing import Any

from torch.utils.data import Dataset

from convkit.train.data.loader import batches


class _Numbers(Dataset[Any]):
    def __getitem__(self, pack: tuple[int, ...]) -> dict[str, Any]:
        return {"pack": pack}


def test_workers_ignore_the_schedulers_sigterm() -> None:
    order: Queue[tuple[int, ...] | None] = Queue()
    for number in range(20):
        order.put((number,))
    stream = batches(_Numbers(), iter(order.get, None), 1)
    assert next(stream) == {"pack": (0,)}
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGTERM)
    for number in range(20, 40):
        order.put((number,))
    order.put(None)
    assert [batch["pack"][0] for batch in stream] == list(range(1, 40))

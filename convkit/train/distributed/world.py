"""The world of a distributed run: rank, world size and device of each process.

Plain Python runs one process; torchrun, accelerate launch and `--nproc` start several.
"""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # now: its defaults keep the process group of the import, if there is one
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from convkit.errors import ConvkitError
from convkit.train.distributed.failure import (
    PEER_LOST,
    PeerFailure,
    report_failure,
    reported_failure,
    sign_off,
    watch_peers,
)

T = TypeVar("T")
BUCKET = 64 * 2**20
"""Gradient elements summed in one all-reduce."""
_TIMEOUT = timedelta(days=1)
"""How long ranks wait while rank 0 reads all rows or writes a checkpoint; NCCL's default is ten minutes."""


@dataclass(frozen=True)
class World:
    """The rank, world size and device of this process."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True on rank 0, which writes files and logs."""
        return self.rank == 0

    def from_first(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and return its result on all ranks; its ConvkitError is raised on all ranks."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = work()
            except ConvkitError as error:
                outcome[1] = str(error)
        dist.broadcast_object_list(outcome)
        result, problem = outcome
        if problem is not None:
            raise ConvkitError(problem)
        return result  # type: ignore[no-any-return]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, condition: bool) -> bool:
        """Return whether a condition holds on any rank."""
        return bool(self.sum(torch.tensor([float(condition)], device=self.device)).item())

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.sum(torch.zeros(1, device=self.device)).item()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum gradients over all ranks, in place; a rank without a gradient of a parameter adds zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets(parameters):
            grads = [parameter.grad for parameter in bucket if parameter.grad is not None]
            flat = self.sum(torch.cat([grad.flatten() for grad in grads]))
            for grad, part in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                grad.copy_(part.view_as(grad))  # in place: an optimizer may hold it as a view of its own tensor


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if bucket and (
            parameter.dtype != bucket[0].dtype or sum(p.numel() for p in bucket) + parameter.numel() > BUCKET
        ):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


@contextmanager
def world() -> Iterator[World]:
    """Join the process group given by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    An exception inside the block is reported to the other ranks.

    Raises:
        PeerFailure: another rank failed; the message is its report.
        ConvkitError: the variables are incomplete, or the ranks cannot find each other.
    """
    size, rank, store = _rendezvous()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # otherwise DeepSpeed, where installed, logs what it detects
    if store is None:
        yield World(0, 1, device)
        return
    store.set_timeout(_TIMEOUT)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    store = _attempt_store(store)
    with watch_peers(store, rank, size) as watchdog:
        try:
            yield World(rank, size, device)
        except Exception as error:
            lost = _connection_lost(error)
            if not lost:
                report_failure(store, f"Process {rank} ended the run: {_described(error)}")
                watchdog.own_error = "" if isinstance(error, ConvkitError) else traceback.format_exc()
            dist.destroy_process_group()  # the other ranks now see a closed connection
            report = reported_failure(store)
            sign_off(store, rank, size, wait=report is not None)
            if lost:
                raise PeerFailure(report or PEER_LOST) from None
            raise
        else:
            dist.destroy_process_group()
            sign_off(store, rank, size)


def _attempt_store(store: Store) -> Store:
    """Return a part of the store for this attempt: torchrun keeps the store when it restarts the processes."""
    name = [os.urandom(8).hex()]
    dist.broadcast_object_list(name)
    return PrefixStore(f"convkit/{name[0]}", store)


def _rendezvous() -> tuple[int, int, Store | None]:
    """Return the world size, the rank and the store that the ranks share; no store for a single process."""
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        return size, rank, next(rendezvous("env://", rank, size))[0] if size > 1 else None
    except (ValueError, dist.DistError) as error:
        raise ConvkitError(
            f"The processes of the run cannot find each other: {error}. Start them with torchrun, which sets RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Or unset WORLD_SIZE and use --nproc."
        ) from None


def _connection_lost(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, ConvkitError) else f"{type(error).__name__}: {error}"

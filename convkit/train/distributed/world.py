"""The processes of one run: plain python is one, torchrun and its like start several."""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # now: its defaults hold the group of that time, which then could not be left
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from convkit.errors import ConvkitError
from convkit.train.distributed.failure import GONE, leave, leave_word, watched, word

T = TypeVar("T")
BUCKET = 64 * 2**20
"""Numbers that are summed up in one message."""
_PATIENCE = timedelta(days=1)
"""Others wait while the first process reads all rows or writes a checkpoint, which NCCL by itself gives ten minutes."""


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process makes of `work`, on all processes; its ConvkitError ends them all."""
        if self.size == 1:
            return work()
        box: list[T | None] = [None]
        failure: list[str | None] = [None]
        if self.first:
            try:
                box = [work()]
            except ConvkitError as error:
                failure = [str(error)]
        both = [*box, *failure]
        dist.broadcast_object_list(both)
        value, problem = both
        if problem is not None:
            raise ConvkitError(str(problem))
        return value  # type: ignore[return-value]

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor of all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, what: bool) -> bool:
        """Whether it is so on any process."""
        return bool(self.sum(torch.tensor([float(what)], device=self.device)).item())

    def wait(self) -> None:
        """Until all processes are here."""
        self.sum(torch.zeros(1, device=self.device)).item()

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up gradients of all processes, in place; a process that has none of a parameter adds zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for bucket in _buckets(parameters):
            grads = [parameter.grad for parameter in bucket if parameter.grad is not None]
            flat = self.sum(torch.cat([grad.flatten() for grad in grads]))
            for grad, part in zip(grads, torch.split(flat, [grad.numel() for grad in grads]), strict=True):
                grad.copy_(part.view_as(grad))  # where it lies: an optimizer may hold it as a part of its own tensor


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
    """Join the other processes, as the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT say."""
    size, rank, store = _joined()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # where DeepSpeed is installed, it would tell what it found
    if store is None:
        yield World(0, 1, device)
        return
    store.set_timeout(_PATIENCE)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    store = _own_part(store)
    with watched(store, rank, size) as watch:
        try:
            yield World(rank, size, device)
        except Exception as error:
            lost = _connection_lost(error)
            if not lost:
                leave_word(store, f"Process {rank} ended the run: {_in_words(error)}")
                watch.own_words = "" if isinstance(error, ConvkitError) else traceback.format_exc()
            dist.destroy_process_group()  # now the others see that something has happened
            text = word(store)
            leave(store, rank, size, stay=text is not None)
            if lost:
                raise ConvkitError(text or GONE) from None
            raise
        else:
            dist.destroy_process_group()
            leave(store, rank, size)


def _own_part(store: Store) -> Store:
    """Of a store that torchrun keeps when it starts the processes of a run once more."""
    name = [os.urandom(8).hex()]
    dist.broadcast_object_list(name)
    return PrefixStore(f"convkit/{name[0]}", store)


def _joined() -> tuple[int, int, Store | None]:
    """How many processes there are, which of them this is, and what they leave word in; none if it is the only one."""
    try:
        size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        return size, rank, next(rendezvous("env://", rank, size))[0] if size > 1 else None
    except (ValueError, dist.DistError) as error:
        raise ConvkitError(
            f"The processes of the run cannot find each other: {error}. Start them with torchrun, which sets RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT; or unset WORLD_SIZE, and say --nproc."
        ) from None


def _connection_lost(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, ConvkitError) else f"{type(error).__name__}: {error}"

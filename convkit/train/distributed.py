"""The processes of one run: plain python is one, torchrun and its like start several."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # now: its defaults hold the group of that time, which then could not be left
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from convkit.errors import ConvkitError

T = TypeVar("T")
BUCKET = 64 * 2**20
"""Numbers that are summed up in one message."""
_FAILURE = "convkit/failure"
_LEFT = "convkit/left/"
_PATIENCE = timedelta(days=1)
"""Others wait while the first process reads all rows or writes a checkpoint, which NCCL by itself gives ten minutes."""
_WAIT = timedelta(seconds=2)
"""A process leaves word before it closes its connections; this is for slow networks."""
_STAY = timedelta(seconds=10)
"""The word lies with the first process, which stays for as long at most until all others have read it."""
_LOOK = 1.0
"""Seconds between two looks at whether a process has left word."""
_GRACE = 15.0
"""Seconds in which a process should have ended by itself after that; one that is in a message of NCCL never does."""
_GONE = (
    "Another process of this run has ended: it was killed, or its own message says why. Start the run again with "
    "--resume auto."
)


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
    with _ended_with_others(store):
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        try:
            yield World(rank, size, device)
        except Exception as error:
            lost = _connection_lost(error)
            if not lost:
                _tell(store, rank, error)
            dist.destroy_process_group()  # now the others see that something has happened
            word = _told(store)
            _leave(store, rank, size, _STAY if word else timedelta())
            if lost:
                raise ConvkitError(word or _GONE) from None
            raise
        else:
            dist.destroy_process_group()


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


def _tell(store: Store, rank: int, error: Exception) -> None:
    """Leave word for the others, who will only see that the connection is lost; the first word counts."""
    text = str(error) if isinstance(error, ConvkitError) else f"{type(error).__name__}: {error}"
    with suppress(RuntimeError):
        store.compare_set(_FAILURE, "", f"Process {rank} ended the run: {text}")


def _told(store: Store) -> str | None:
    """Word of the process that failed; none if it was killed, or took the store along."""
    try:
        store.wait([_FAILURE], _WAIT)
        return str(store.get(_FAILURE).decode())
    except RuntimeError:
        return None


@contextmanager
def _ended_with_others(store: Store) -> Iterator[None]:
    """End this process once another one has failed, if it does not do so by itself.

    With gloo a connection that is closed ends what waits for it. NCCL waits on the GPU for a message that never comes,
    and takes no signal meanwhile.
    """
    done = threading.Event()
    own: Store = store.clone()  # type: ignore[attr-defined]  # the other is locked while something waits for a key

    def look() -> None:
        with suppress(RuntimeError):  # nobody holds the store any more
            while not own.check([_FAILURE]):
                if done.wait(_LOOK):
                    return
            word = own.get(_FAILURE).decode()
            if not done.wait(_GRACE):
                print(f"convkit: error: {word}", file=sys.stderr, flush=True)
                os._exit(2)  # checkpoints are whole at any instant

    watch = threading.Thread(target=look, name="convkit-others", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join(_GRACE)


def _leave(store: Store, rank: int, size: int, stay: timedelta) -> None:
    """Say that this process needs the store no more; the first one has it, and waits for the others."""
    with suppress(RuntimeError):
        store.set(f"{_LEFT}{rank}", "")
        if rank == 0:
            store.wait([f"{_LEFT}{other}" for other in range(size)], stay)

"""What a process of a run says before it ends, and how the others come to know.

With gloo a connection that is closed ends what waits for it. NCCL waits on the GPU for a message that never comes, and
takes no signal meanwhile: a thread looks whether somebody has left word, or was killed without one.
"""

import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

GONE = (
    "Another process of this run has ended: it was killed, or its own message says why. Start the run again with "
    "--resume auto."
)
_WORD = "convkit/word"
_LEFT = "convkit/left/"
_HOME = "convkit/home/"
_WAIT = timedelta(seconds=2)
"""A process leaves word before it closes its connections; this is for slow networks."""
_STAY = timedelta(seconds=10)
"""The first process waits for as long at most until all others have read the word."""
_LOOK = 1.0
"""Seconds between two looks."""
_GRACE = 15.0
"""Seconds in which a process should have ended by itself after another one has."""


def leave_word(store: Store, text: str) -> None:
    """For the others, who will only see that the connection is lost; the first word counts."""
    with suppress(RuntimeError):
        store.compare_set(_WORD, "", text)


def word(store: Store) -> str | None:
    """Of the process that failed; none if it was killed, or took the store along."""
    try:
        store.wait([_WORD], _WAIT)
        return str(store.get(_WORD).decode())
    except RuntimeError:
        return None


def leave(store: Store, rank: int, size: int, stay: bool = True) -> None:
    """Say that this process needs the store no more; the first one, which may have it, stays until all have."""
    with suppress(RuntimeError):
        store.set(f"{_LEFT}{rank}", "")
        if rank == 0 and stay:
            store.wait([f"{_LEFT}{other}" for other in range(size)], _STAY)


@contextmanager
def ended_with_others(store: Store, rank: int, size: int) -> Iterator[None]:
    """End this process once another one has failed or was killed, if it does not do so by itself."""
    done = threading.Event()
    # The other one is locked while something waits for a key.
    own: Store = store.clone()  # type: ignore[attr-defined]
    own.set(f"{_HOME}{rank}", f"{_home()} {os.getpid()}")
    watch = threading.Thread(target=_watch, args=(own, rank, size, done), name="convkit-others", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join(_GRACE)


def _watch(store: Store, rank: int, size: int, done: threading.Event) -> None:
    others = [other for other in range(size) if other != rank]
    beside: dict[int, int | None] = {}
    with suppress(RuntimeError):  # nobody holds the store any more
        while not store.check([_WORD]):
            if others and store.check([f"{_HOME}{other}" for other in others]):
                beside = _beside(store, others)
                others = []
            if any(not store.check([f"{_LEFT}{other}"]) for other in _ended(beside)):
                leave_word(store, GONE)
            elif done.wait(_LOOK):
                break
        else:
            text = store.get(_WORD).decode()
            if not done.wait(_GRACE):
                print(f"convkit: error: {text}", file=sys.stderr, flush=True)
                os._exit(2)  # checkpoints are whole at any instant
    for handle in beside.values():
        if handle is not None:
            os.close(handle)


def _home() -> str:
    """Where a process can be told by its number: this machine, or a container of it; empty where that is not known."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _beside(store: Store, others: list[int]) -> dict[int, int | None]:
    """Handles of those processes that run here; none of one that has ended already."""
    found: dict[int, int | None] = {}
    for other in others:
        home, number = store.get(f"{_HOME}{other}").decode().rsplit(" ", 1)
        if home and home == _home():
            try:
                found[other] = os.pidfd_open(int(number))
            except ProcessLookupError:
                found[other] = None
            except OSError:  # the system has no such handles, or no more of them
                continue
    return found


def _ended(beside: dict[int, int | None]) -> list[int]:
    ready, _, _ = select.select([handle for handle in beside.values() if handle is not None], [], [], 0)
    return [other for other, handle in beside.items() if handle is None or handle in ready]

"""What a process of a run says before it ends, and how the others come to know.

With gloo a connection that is closed ends what waits for it. NCCL waits on the GPU for a message that never comes, and
takes no signal meanwhile: a thread looks whether somebody has left word, or has ended without.
"""

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

GONE = (
    "Another process of this run has ended: it was killed, or its own message says why. Start the run again with "
    "--resume auto."
)
UNINTERRUPTED = threading.RLock()
"""Held while something is written that would be lost: no process is ended by others meanwhile."""
_WORD, _LEFT, _HOME = "word", "left/", "home/"
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
def watched(store: Store, rank: int, size: int) -> Iterator["Watch"]:
    """End this process once another one has failed or was killed, if it does not do so by itself."""
    watch = Watch(store, rank, size)
    watch.start()
    try:
        yield watch
    finally:
        watch.done.set()
        watch.join(_GRACE)


class Watch(threading.Thread):
    """Looks at the others.

    Args:
        store: of this run alone; what an earlier try left in it would be taken for news.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        super().__init__(name="convkit-others", daemon=True)
        # The other one is locked while something waits for a key.
        self._store: Store = store.clone()  # type: ignore[attr-defined]
        self._others = [other for other in range(size) if other != rank]
        self._store.set(f"{_HOME}{rank}", f"{_home()} {os.getpid()}")
        self.done = threading.Event()
        self.own_words = ""
        """What is said instead of the word if this process is the one that failed, and does not get out of it."""

    def run(self) -> None:
        """Wait for word, and then for this process."""
        heard = self._heard()
        if heard is not None and not self.done.wait(_GRACE):
            with UNINTERRUPTED:
                print(self.own_words or f"convkit: error: {heard}", file=sys.stderr, flush=True)
                os._exit(2)

    def _heard(self) -> str | None:
        """The word, once somebody has left one or was killed; none if this process has ended before."""
        try:
            with ExitStack() as handles:
                return self._look(handles)
        except RuntimeError:  # the first process, which had the store, is no more
            return None if self.done.is_set() else GONE

    def _look(self, handles: ExitStack) -> str | None:
        beside: dict[int, int] | None = None
        while not self._store.check([_WORD]):
            if beside is None and self._store.check([f"{_HOME}{other}" for other in self._others]):
                beside = self._beside(handles)
            if beside and self._was_killed(beside):
                leave_word(self._store, GONE)
            elif self.done.wait(_LOOK):
                return None
        return str(self._store.get(_WORD).decode())

    def _beside(self, handles: ExitStack) -> dict[int, int]:
        """Those processes that run here, by handles of them; one that has ended already has none."""
        here, found = _home(), {}
        for other in self._others:
            home, number = self._store.get(f"{_HOME}{other}").decode().rsplit(" ", 1)
            if here and home == here:
                with suppress(OSError):
                    handle = os.pidfd_open(int(number))
                    handles.callback(os.close, handle)
                    found[handle] = other
        return found

    def _was_killed(self, beside: dict[int, int]) -> bool:
        poll = select.poll()
        for handle in beside:
            poll.register(handle)
        return any(not self._store.check([f"{_LEFT}{beside[handle]}"]) for handle, _ in poll.poll(0))


def _home() -> str:
    """Where a number tells a process: this start of this machine, or of a container; empty where nothing tells that."""
    if not hasattr(os, "pidfd_open"):  # some builds of Python lack it
        return ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as boot:
        return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""

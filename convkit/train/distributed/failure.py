"""Failures in distributed runs: report one to the other ranks, and end a rank that waits for a dead one.

With gloo, a closed connection ends whatever waits for it. NCCL waits on the GPU for a message that never comes and
handles no signal meanwhile. A thread therefore checks whether another rank reported a failure or was killed.
"""

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from convkit.errors import ConvkitError

PEER_LOST = (
    "Another process of this run has ended: it was killed, or its own message says why. Start the run again with "
    "--resume auto."
)
WRITE_LOCK = threading.RLock()
"""Held while a checkpoint is written: the watchdog ends no process meanwhile."""
_FAILURE, _DONE, _PROCESS = "failure", "done/", "process/"
"""Keys of the store."""
_REPORT_TIMEOUT = timedelta(seconds=2)
"""Time for a report to arrive over a slow network; a rank reports before it closes its connections."""
_SIGN_OFF_TIMEOUT = timedelta(seconds=10)
"""The longest that rank 0 waits until all other ranks have read a report."""
_POLL_S = 1.0
"""Seconds between two checks."""
_GRACE_S = 15.0
"""Seconds in which a rank should end by itself after another one has."""


class PeerFailure(ConvkitError):
    """Another rank failed or was killed."""


def report_failure(store: Store, text: str) -> None:
    """Report a failure to the other ranks, which only see a lost connection; the first report counts."""
    with suppress(RuntimeError):
        store.compare_set(_FAILURE, "", text)


def reported_failure(store: Store) -> str | None:
    """Return the report of the rank that failed; None if it was killed, or the store is gone with it."""
    try:
        store.wait([_FAILURE], _REPORT_TIMEOUT)
        return str(store.get(_FAILURE).decode())
    except RuntimeError:
        return None


def sign_off(store: Store, rank: int, size: int, wait: bool = True) -> None:
    """Mark this rank as done with the store; rank 0, which may host it, waits for the others."""
    with suppress(RuntimeError):
        store.set(f"{_DONE}{rank}", "")
        if rank == 0 and wait:
            store.wait([f"{_DONE}{other}" for other in range(size)], _SIGN_OFF_TIMEOUT)


@contextmanager
def watch_peers(store: Store, rank: int, size: int) -> Iterator["Watchdog"]:
    """End this process after another rank failed or was killed, unless it ends by itself."""
    watchdog = Watchdog(store, rank, size)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.finished.set()
        watchdog.join(_GRACE_S)


class Watchdog(threading.Thread):
    """A thread that checks the other ranks.

    Args:
        store: of this attempt alone; reports of an earlier attempt would be taken for new ones.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        super().__init__(name="convkit-watchdog", daemon=True)
        # A copy, because the original is locked while something waits for a key.
        self._store: Store = store.clone()  # type: ignore[attr-defined]
        self._peers = [other for other in range(size) if other != rank]
        self._store.set(f"{_PROCESS}{rank}", f"{_host_id()} {os.getpid()}")
        self.finished = threading.Event()
        self.own_error = ""
        """Printed instead of the report if this is the rank that failed and it cannot end by itself."""

    def run(self) -> None:
        """Wait for a failure of another rank, then give this process time to end."""
        failure = self._wait_for_failure()
        if failure is not None and not self.finished.wait(_GRACE_S):
            with WRITE_LOCK:
                print(self.own_error or f"convkit: error: {failure}", file=sys.stderr, flush=True)
                os._exit(2)

    def _wait_for_failure(self) -> str | None:
        """Return the report once a rank has failed or was killed; None if this process finished first."""
        try:
            with ExitStack() as handles:
                return self._poll(handles)
        except RuntimeError:  # rank 0, which hosted the store, is gone
            return None if self.finished.is_set() else PEER_LOST

    def _poll(self, handles: ExitStack) -> str | None:
        local: dict[int, int] | None = None
        while not self._store.check([_FAILURE]):
            if local is None and self._store.check([f"{_PROCESS}{other}" for other in self._peers]):
                local = self._local_peers(handles)
            if local and self._any_killed(local):
                report_failure(self._store, PEER_LOST)
            elif self.finished.wait(_POLL_S):
                return None
        return str(self._store.get(_FAILURE).decode())

    def _local_peers(self, handles: ExitStack) -> dict[int, int]:
        """Return the ranks that run on this host, by process handle; a process that already ended has none."""
        here, found = _host_id(), {}
        for other in self._peers:
            host, process = self._store.get(f"{_PROCESS}{other}").decode().rsplit(" ", 1)
            if here and host == here:
                with suppress(OSError):
                    handle = os.pidfd_open(int(process))
                    handles.callback(os.close, handle)
                    found[handle] = other
        return found

    def _any_killed(self, local: dict[int, int]) -> bool:
        poll = select.poll()
        for handle in local:
            poll.register(handle)
        return any(not self._store.check([f"{_DONE}{local[handle]}"]) for handle, _ in poll.poll(0))


def _host_id() -> str:
    """Return what makes a process id unique: this boot of the machine and the PID namespace; empty if unknown."""
    if not hasattr(os, "pidfd_open"):  # some builds of Python do not have it
        return ""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as boot:
        return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""

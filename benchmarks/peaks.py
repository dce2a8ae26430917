"""Measure the peak memory of a process and of its worker processes (Linux only).

The peaks are the kernel's own (VmHWM). Worker processes are polled until they end.
"""

import threading
from collections.abc import Callable, Sequence

from benchmarks.processes import children, peak_mib
from benchmarks.report import Figure, figure

POLL_SECONDS = 0.02
MAX_GROWTH = 1.2

Peaks = dict[str, float]
"""Peak MiB of the `parent`, of the largest `worker`, and of `all` processes together."""


def measure_peaks(work: Callable[[], object]) -> Peaks:
    """Do some work, and return the peak memory of this process and of the processes that it starts."""
    workers: dict[int, float] = {}
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            for pid in children():
                workers[pid] = max(workers.get(pid, 0.0), peak_mib(pid))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        work()
    finally:
        ended.set()
        thread.join()
    parent = peak_mib()
    return {"parent": parent, "worker": max(workers.values(), default=0.0), "all": parent + sum(workers.values())}


def figures(rounds: Sequence[dict[int, Peaks]], few: int, many: int, unit: str) -> list[Figure]:
    """Return the peaks of both sizes, and their growth from one to the other.

    Args:
        rounds: the peaks by size, for each round.
        unit: the unit of the sizes, in the plural.
    """
    return [f for who in ("parent", "worker") for f in _figures(rounds, few, many, unit, who)]


def _figures(rounds: Sequence[dict[int, Peaks]], few: int, many: int, unit: str, who: str) -> list[Figure]:
    sizes = [
        figure(f"peak of the {who}, {count} {unit}", "", [peaks[count][who] for peaks in rounds], unit="MiB")
        for count in (few, many)
    ]
    growth = [peaks[many][who] / peaks[few][who] for peaks in rounds]
    return [*sizes, figure(f"peak of the {who}, {many} {unit}", f"{few} {unit}", growth, at_most=MAX_GROWTH)]

"""Peak memory of a conversion: of the process itself and of its largest worker (Linux only).

The peaks are the kernel's own (VmHWM); the workers' are looked at until they end.
"""

import threading
from collections.abc import Callable, Sequence

from benchmarks.processes import children, peak_mib
from benchmarks.report import Figure, figure

LOOK_SECONDS = 0.02
MOST_GROWTH = 1.2

Peaks = dict[str, float]
"""MiB of the parent and of the largest worker."""


def watched(work: Callable[[], object]) -> Peaks:
    """Do the work, and give the peaks of this process and of the largest that it started."""
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            for pid in children():
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return {"parent": peak_mib(), "worker": max(peaks.values())}


def figures(rounds: Sequence[dict[int, Peaks]], few: int, many: int, unit: str) -> list[Figure]:
    """Peaks of either size, and how much they grow from one to the other.

    Args:
        rounds: for each round, the peaks by size.
        unit: what is counted, in the plural.
    """
    return [f for who in ("parent", "worker") for f in _figures(rounds, few, many, unit, who)]


def _figures(rounds: Sequence[dict[int, Peaks]], few: int, many: int, unit: str, who: str) -> list[Figure]:
    sizes = [
        figure(f"peak of the {who}, {count} {unit}", "", [peaks[count][who] for peaks in rounds], unit="MiB")
        for count in (few, many)
    ]
    growth = [peaks[many][who] / peaks[few][who] for peaks in rounds]
    return [*sizes, figure(f"peak of the {who}, {many} {unit}", f"{few} {unit}", growth, at_most=MOST_GROWTH)]

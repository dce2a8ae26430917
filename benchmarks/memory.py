"""Peak memory of a conversion of 2,000 clips against one of 100: it must not grow with the source.

Each conversion is a fresh process with 2 workers. The parent's peak and that of the largest worker are the kernel's
own (VmHWM), the workers' looked at until they end. The clips are small, so that what is kept for each one shows.

Usage of the measured process: python -m benchmarks.memory SOURCE OUT_DIR
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks import clips
from benchmarks.processes import answer, children, peak_mib
from benchmarks.report import Figure, Result, figure

FEW, MANY = 100, 2000
WORKERS = 2
ROUNDS = 3
LOOK_SECONDS = 0.02
MOST_GROWTH = 1.2

Peaks = dict[str, float]


def run() -> Result:
    """Measure both sizes in turn."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made = clips.made_clips(work / "made")
        sources = {count: clips.lay_out(made, count, work / str(count)) for count in (FEW, MANY)}
        rounds = [{count: _measure(source, work) for count, source in sources.items()} for _ in range(ROUNDS)]
    setting = {"clips": [FEW, MANY], "data": "made clips", "workers": WORKERS, "rounds": ROUNDS}
    return Result("memory", setting, [f for who in ("parent", "worker") for f in _figures(rounds, who)])


def _measure(source: Path, work: Path) -> Peaks:
    with tempfile.TemporaryDirectory(dir=work) as out_dir:
        peaks: Peaks = answer("-m", "benchmarks.memory", str(source), out_dir)
    return peaks


def _figures(rounds: list[dict[int, Peaks]], who: str) -> list[Figure]:
    growth = [peaks[MANY][who] / peaks[FEW][who] for peaks in rounds]
    sizes = [
        figure(f"peak of the {who}, {count} clips", "", [peaks[count][who] for peaks in rounds], unit="MiB")
        for count in (FEW, MANY)
    ]
    return [*sizes, figure(f"peak of the {who}, {MANY} clips", f"{FEW} clips", growth, at_most=MOST_GROWTH)]


def convert_watched(source: Path, out_dir: Path) -> Peaks:
    """Convert, and give the peak of this process and of its largest worker in MiB."""
    from convkit.convert import convert
    from convkit.converters.ucf101 import UCF101, UCF101Options

    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            for pid in children():
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        convert(UCF101, str(source), UCF101Options.model_validate({}), out_dir, workers=WORKERS)
    finally:
        ended.set()
        watcher.join()
    return {"parent": peak_mib(), "worker": max(peaks.values())}


if __name__ == "__main__":
    print(json.dumps(convert_watched(Path(sys.argv[1]), Path(sys.argv[2]))))

"""Compare the peak memory of converting 2,000 clips with that of 100: it must not grow with the source.

Each conversion is a fresh process with 2 workers. The clips are small, so that the memory kept per clip shows.

Usage of the measured process: python -m benchmarks.memory SOURCE OUT_DIR
"""

import json
import sys
import tempfile
from pathlib import Path

from benchmarks import clips, peaks
from benchmarks.peaks import Peaks
from benchmarks.processes import json_output
from benchmarks.report import Result

FEW, MANY = 100, 2000
WORKERS = 2
ROUNDS = 3


def run() -> Result:
    """Measure both sizes in turn, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made = clips.generate_clips(work / "made")
        sources = {count: clips.make_source(made, count, work / str(count)) for count in (FEW, MANY)}
        rounds = [{count: _measure(source, work) for count, source in sources.items()} for _ in range(ROUNDS)]
    setting = {"clips": [FEW, MANY], "data": "generated clips", "workers": WORKERS, "rounds": ROUNDS}
    return Result("memory", setting, peaks.figures(rounds, FEW, MANY, "clips"))


def _measure(source: Path, work: Path) -> Peaks:
    with tempfile.TemporaryDirectory(dir=work) as out_dir:
        found: Peaks = json_output("-m", "benchmarks.memory", str(source), out_dir)
    return found


def convert(source: Path, out_dir: Path) -> None:
    """Convert as `convkit convert ucf101` does."""
    from convkit.convert.run import convert
    from convkit.converters.ucf101 import UCF101, UCF101Options

    convert(UCF101, str(source), UCF101Options.model_validate({}), out_dir, workers=WORKERS)


if __name__ == "__main__":
    print(json.dumps(peaks.measure_peaks(lambda: convert(Path(sys.argv[1]), Path(sys.argv[2])))))

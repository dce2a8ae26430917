"""Validating rows without their media, against parsing them and nothing else.

300,000 rows like those of UCF-101 (8 images, a prompt of 10 classes), in one file. Both run in one process each, in
turn; the time is that of the work without start-up. The alternative is `Conversation.model_validate_json` over the
same lines: the least that a check of every row can cost. Peak memory at a tenth of the rows shows whether it grows.

Usage of the measured process: python -m benchmarks.validate FILE validate|parse
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.clips import CLASSES
from benchmarks.processes import answer, peak_mib
from benchmarks.report import Result, figure

ROWS, FEW = 300_000, 30_000
IMAGES = 8
ROUNDS = 3

Measured = dict[str, float]
"""Seconds and peak, in MiB."""


def run() -> Result:
    """Measure both on all rows, and the validation on a tenth of them."""
    with tempfile.TemporaryDirectory() as folder:
        many, few = _write_rows(Path(folder) / "many", ROWS), _write_rows(Path(folder) / "few", FEW)
        size = many.stat().st_size / ROWS
        rounds = [
            (_measure(many, "validate"), _measure(many, "parse"), _measure(few, "validate")) for _ in range(ROUNDS)
        ]
    speed = [bare["seconds"] / ours["seconds"] for ours, bare, _ in rounds]
    peaks, small_peaks = [ours["peak"] for ours, _, _ in rounds], [ours["peak"] for _, _, ours in rounds]
    growth = [large / small for large, small in zip(peaks, small_peaks, strict=True)]
    return Result(
        "validate",
        {"rows": [FEW, ROWS], "bytes_a_row": round(size), "media": "none", "processes": 1, "rounds": ROUNDS},
        [
            figure(f"speed, {ROWS} rows", "parsing alone", speed),
            figure(f"peak, {FEW} rows", "", small_peaks, unit="MiB"),
            figure(f"peak, {ROWS} rows", "", peaks, unit="MiB"),
            figure(f"peak, {ROWS} rows", f"{FEW} rows", growth),
        ],
    )


def _measure(path: Path, method: str) -> Measured:
    measured: Measured = answer("-m", "benchmarks.validate", str(path), method)
    return measured


def _write_rows(folder: Path, count: int) -> Path:
    folder.mkdir()
    path = folder / "ucf101_train.jsonl"
    with path.open("wb") as file:
        file.writelines(_line(number) for number in range(count))
    return path


def _line(number: int) -> bytes:
    """A row about as long as those of UCF-101."""
    from convkit.schema import Conversation, Turn

    label = CLASSES[number % len(CLASSES)]
    clip = f"train/{label}/v_{label}_g{number % 25 + 1:02d}_c{number:06d}"
    turn = Turn(
        images=tuple(f"{clip}.{k}.jpg" for k in range(IMAGES)),
        user=f"Classify the video into one of the following classes: {', '.join(CLASSES)}.",
        assistant=label,
    )
    row = Conversation(id=f"train-{number:010d}", source="ucf101", conversations=(turn,), group=f"{label}_{number}")
    return row.to_line() + b"\n"


def _validate(path: Path) -> None:
    from convkit.validate import validate

    summary = validate([path], media="none", workers=0).report.summary
    if summary.errors or summary.warnings:
        raise RuntimeError(f"the benchmark's own rows are not sound: {summary}")


def _parse(path: Path) -> None:
    from convkit.schema import Conversation

    with path.open("rb") as file:
        for line in file:
            Conversation.model_validate_json(line)


def measure(path: Path, method: str) -> Measured:
    """Run one of the two in this process; imports are made before the clock starts."""
    work = {"validate": _validate, "parse": _parse}[method]
    with tempfile.TemporaryDirectory() as folder:
        work(_write_rows(Path(folder) / "one", 1))
    begun = time.perf_counter()
    work(path)
    return {"seconds": time.perf_counter() - begun, "peak": peak_mib()}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))

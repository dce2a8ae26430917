"""Compare validation with its minimum cost (parsing rows, opening images) and with another validator.

Rows are like those of UCF-101 (8 images, a prompt of 10 classes), in one file. Validation and the alternatives are
fresh processes, run in turn. The measured time includes starting the workers, but not the imports of the main process.

parse       `Row.model_validate_json` on the same lines, in as many processes
open        Pillow's `open` on the same images, in as many processes
jsonschema  schemas/row.json, checked in one process

The images are JPEG files of 640 x 480. The first run decodes all of them, the second finds them unchanged.

Usage of the measured process: python -m benchmarks.validate PATH METHOD WORKERS
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.clips import CLASSES
from benchmarks.peaks import measure_peaks
from benchmarks.processes import ROOT, json_output
from benchmarks.report import Figure, Result, figure

ROWS, MANY, FEW, JSONSCHEMA_ROWS = 300_000, 1_000_000, 30_000, 3_000
IMAGES_PER_ROW = 8
IMAGES = 8_000
WORKERS = 2
ROUNDS = 3

Measured = dict[str, float]
"""Seconds, and the peak MiB of the main process and of all processes together."""


def run() -> Result:
    """Measure structure, memory and media checks."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        figures = [*_structure(work), *_memory(work), *_media(work)]
    setting = {"rows": ROWS, "images_per_row": IMAGES_PER_ROW, "images": IMAGES, "processes": WORKERS, "rounds": ROUNDS}
    return Result("validate", setting, figures)


def _structure(work: Path) -> list[Figure]:
    rows, few = _write_rows(work / "rows", ROWS), _write_rows(work / "fewest", JSONSCHEMA_ROWS)
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "bare", "ours alone", "bare alone", "jsonschema")}
    for _ in range(ROUNDS):
        seconds["ours"].append(_seconds(rows, "none", WORKERS))
        seconds["bare"].append(_seconds(rows, "parse", WORKERS))
        seconds["ours alone"].append(_seconds(rows, "none", 0))
        seconds["bare alone"].append(_seconds(rows, "parse", 0))
        seconds["jsonschema"].append(_seconds(few, "jsonschema", 0) * ROWS / JSONSCHEMA_ROWS)
    alone = seconds["ours alone"]
    return [
        figure(f"structure, {WORKERS} processes", "parsing", _ratios(seconds["bare"], seconds["ours"]), at_least=0.7),
        figure("structure, 1 process", "parsing", _ratios(seconds["bare alone"], alone)),
        figure("structure, rows per second and core", "", [ROWS / s for s in alone], unit="rows/s", at_least=100_000),
        figure(
            f"structure, {WORKERS} processes",
            "jsonschema, which has one",
            _ratios(seconds["jsonschema"], seconds["ours"]),
            at_least=20,
        ),
    ]


def _memory(work: Path) -> list[Figure]:
    many, few = _write_rows(work / "many", MANY), _write_rows(work / "few", FEW)
    large, small = (_measure(path, "none", WORKERS) for path in (many, few))
    many.unlink()
    return [
        figure(f"peak of all processes, {MANY} rows", "", [large["total"]], unit="MiB", at_most=600),
        figure(f"peak of the main process, {MANY} rows", f"{FEW} rows", [large["peak"] / small["peak"]]),
    ]


def _media(work: Path) -> list[Figure]:
    rows = _write_images(work / "images-dataset")
    header, first, second = [], [], []
    for _ in range(ROUNDS):
        header.append((_seconds(rows, "header", WORKERS, fresh=True), _seconds(rows, "open", WORKERS)))
        first.append(_seconds(rows, "decode", WORKERS, fresh=True))
        second.append(_seconds(rows, "decode", WORKERS))
    return [
        figure("headers of images", "opening them", [bare / ours for ours, bare in header], at_least=0.6),
        figure("second run, unchanged images", "first run", _ratios(first, second), at_least=20),
    ]


def _ratios(others: list[float], ours: list[float]) -> list[float]:
    return [other / own for other, own in zip(others, ours, strict=True)]


def _seconds(path: Path, method: str, workers: int, fresh: bool = False) -> float:
    cache = path.parent / "cache"
    if fresh:
        for file in cache.glob("*"):
            file.unlink()
    return _measure(path, method, workers)["seconds"]


def _measure(path: Path, method: str, workers: int) -> Measured:
    os.environ["CONVKIT_CACHE"] = str(path.parent / "cache")
    measured: Measured = json_output("-m", "benchmarks.validate", str(path), method, str(workers))
    return measured


def _write_rows(folder: Path, count: int) -> Path:
    folder.mkdir()
    path = folder / "ucf101_train.jsonl"
    with path.open("wb") as file:
        file.writelines(_line(number) for number in range(count))
    return path


def _line(number: int) -> bytes:
    """Return a row about as long as those of UCF-101."""
    from convkit.schema import Row, Turn

    label = CLASSES[number % len(CLASSES)]
    clip = f"train/{label}/v_{label}_g{number % 25 + 1:02d}_c{number:06d}"
    turn = Turn(
        images=tuple(f"{clip}.{k}.jpg" for k in range(IMAGES_PER_ROW)),
        user=f"Classify the video into one of the following classes: {', '.join(CLASSES)}.",
        assistant=label,
    )
    row = Row(id=f"train-{number:010d}", source="ucf101", conversations=(turn,), group=f"{label}_{number}")
    return row.to_line() + b"\n"


def _write_images(folder: Path) -> Path:
    """Write rows with distinct images, and wait until the images are old enough to be cached."""
    import cv2
    import numpy as np

    from convkit.schema import Row, Turn

    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    image = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    path = folder / "images_train.jsonl"
    names: list[str] = []
    with path.open("wb") as file:
        for number in range(IMAGES):
            image[:16, :16], image[:16, 16:32] = divmod(number, 256)
            name = f"{number % 100:02d}/{number:06d}.jpg"
            (folder / "images" / name).parent.mkdir(exist_ok=True)
            (folder / "images" / name).write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
            names.append(name)
            if len(names) == IMAGES_PER_ROW:
                label = CLASSES[number // IMAGES_PER_ROW % len(CLASSES)]
                turn = Turn(images=tuple(names), user="What is it?", assistant=label)
                file.write(Row(id=str(number), source="generated", conversations=(turn,)).to_line() + b"\n")
                names.clear()
    time.sleep(2.5)
    return path


def _validate(path: Path, method: str, workers: int) -> None:
    from convkit.validate.run import validate

    summary = validate([path], media=method, workers=workers).report.summary  # type: ignore[arg-type]
    if summary.errors or summary.warnings:
        raise RuntimeError(f"the benchmark's own rows are invalid: {summary}")


def _in_processes(work: Callable[[Path, int, int], None], path: Path, workers: int) -> None:
    """Divide the work among worker processes, or do all of it in this process if there are none."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    if workers == 0:
        work(path, 0, 1)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(work, [path] * workers, range(workers), [workers] * workers))


def _parse(path: Path, share: int, shares: int) -> None:
    from convkit.schema import Row

    size = path.stat().st_size
    with path.open("rb") as file:
        if share:
            file.seek(size * share // shares - 1)
            file.readline()
        end = size * (share + 1) // shares
        left = end - file.tell()
        for line in file:
            Row.model_validate_json(line)
            left -= len(line)
            if left <= 0:
                return


def _open(path: Path, share: int, shares: int) -> None:
    import PIL.Image

    names = sorted((path.parent / "images").rglob("*.jpg"))
    for name in names[share::shares]:
        with PIL.Image.open(name) as image:
            assert image.size == (640, 480)


def _jsonschema(path: Path) -> None:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(json.loads((ROOT / "schemas" / "row.json").read_text()))
    with path.open("rb") as file:
        for line in file:
            validator.validate(json.loads(line))


def _do(path: Path, method: str, workers: int) -> None:
    if method == "parse":
        _in_processes(_parse, path, workers)
    elif method == "open":
        _in_processes(_open, path, workers)
    elif method == "jsonschema":
        _jsonschema(path)
    else:
        _validate(path, method, workers)


def measure(path: Path, method: str, workers: int) -> Measured:
    """Run a method, and measure it. Imports of this process are done before the clock starts."""
    with tempfile.TemporaryDirectory() as folder:
        _do(_write_rows(Path(folder) / "one", 1), "none" if method in ("header", "decode", "open") else method, 0)
    seconds: list[float] = []

    def work() -> None:
        began = time.perf_counter()
        _do(path, method, workers)
        seconds.append(time.perf_counter() - began)

    peaks = measure_peaks(work)
    return {"seconds": seconds[0], "peak": peaks["parent"], "total": peaks["all"]}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))

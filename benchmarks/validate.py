"""Validating against the least that it can cost: parsing rows, opening images, and another validator.

Rows are like those of UCF-101 (8 images, a prompt of 10 classes), in one file. Validation and the alternatives are
fresh processes that run in turn; both start their workers within the measured time, imports of the main process
happen before it. `parse` is `Row.model_validate_json` over the same lines, `header` is Pillow's `open` over
the same images, each in as many processes as the validation; `jsonschema` checks schemas/row.json in one.

The images are JPEG files of 640 x 480. The first run decodes them all, the second one finds them unchanged.

Usage of the measured process: python -m benchmarks.validate PATH METHOD WORKERS
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.clips import CLASSES
from benchmarks.processes import ROOT, answer, children, peak_mib
from benchmarks.report import Figure, Result, figure

ROWS, MANY, FEW, FEWEST = 300_000, 1_000_000, 30_000, 3_000
IMAGES = 8
PICTURES = 8_000
WORKERS = 2
ROUNDS = 3
LOOK_SECONDS = 0.02

Measured = dict[str, float]
"""Seconds, and the peaks of the main process and of all together, in MiB."""


def run() -> Result:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        figures = [*_structure(work), *_memory(work), *_media(work)]
    setting = {"rows": ROWS, "images_a_row": IMAGES, "pictures": PICTURES, "processes": WORKERS, "rounds": ROUNDS}
    return Result("validate", setting, figures)


def _structure(work: Path) -> list[Figure]:
    rows, few = _write_rows(work / "rows", ROWS), _write_rows(work / "fewest", FEWEST)
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "bare", "ours alone", "bare alone", "jsonschema")}
    for _ in range(ROUNDS):
        seconds["ours"].append(_seconds(rows, "none", WORKERS))
        seconds["bare"].append(_seconds(rows, "parse", WORKERS))
        seconds["ours alone"].append(_seconds(rows, "none", 0))
        seconds["bare alone"].append(_seconds(rows, "parse", 0))
        seconds["jsonschema"].append(_seconds(few, "jsonschema", 0) * ROWS / FEWEST)
    alone = seconds["ours alone"]
    return [
        figure(f"structure, {WORKERS} processes", "parsing", _ratios(seconds["bare"], seconds["ours"]), at_least=0.7),
        figure("structure, 1 process", "parsing", _ratios(seconds["bare alone"], alone)),
        figure("structure, rows a second and core", "", [ROWS / s for s in alone], unit="rows/s", at_least=100_000),
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
    rows = _write_pictures(work / "pictures")
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
    measured: Measured = answer("-m", "benchmarks.validate", str(path), method, str(workers))
    return measured


def _write_rows(folder: Path, count: int) -> Path:
    folder.mkdir()
    path = folder / "ucf101_train.jsonl"
    with path.open("wb") as file:
        file.writelines(_line(number) for number in range(count))
    return path


def _line(number: int) -> bytes:
    """A row about as long as those of UCF-101."""
    from convkit.schema import Row, Turn

    label = CLASSES[number % len(CLASSES)]
    clip = f"train/{label}/v_{label}_g{number % 25 + 1:02d}_c{number:06d}"
    turn = Turn(
        images=tuple(f"{clip}.{k}.jpg" for k in range(IMAGES)),
        user=f"Classify the video into one of the following classes: {', '.join(CLASSES)}.",
        assistant=label,
    )
    row = Row(id=f"train-{number:010d}", source="ucf101", conversations=(turn,), group=f"{label}_{number}")
    return row.to_line() + b"\n"


def _write_pictures(folder: Path) -> Path:
    """Rows of as many pictures as above; the pictures differ, and are old enough to be remembered."""
    import cv2
    import numpy as np

    from convkit.schema import Row, Turn

    (folder / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    picture = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    path = folder / "pictures_train.jsonl"
    names: list[str] = []
    with path.open("wb") as file:
        for number in range(PICTURES):
            picture[:16, :16], picture[:16, 16:32] = divmod(number, 256)
            name = f"{number % 100:02d}/{number:06d}.jpg"
            (folder / "images" / name).parent.mkdir(exist_ok=True)
            (folder / "images" / name).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
            names.append(name)
            if len(names) == IMAGES:
                turn = Turn(images=tuple(names), user="What is it?", assistant=CLASSES[number // IMAGES % len(CLASSES)])
                file.write(Row(id=str(number), source="made", conversations=(turn,)).to_line() + b"\n")
                names.clear()
    time.sleep(2.5)
    return path


def _validate(path: Path, method: str, workers: int) -> None:
    from convkit.validate.run import validate

    summary = validate([path], media=method, workers=workers).report.summary  # type: ignore[arg-type]
    if summary.errors or summary.warnings:
        raise RuntimeError(f"the benchmark's own rows are not sound: {summary}")


def _in_processes(work: Callable[[Path, int, int], None], path: Path, workers: int) -> None:
    """Do a share of the work in each of some processes, or all in this one."""
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
    """Do the work in this process and its workers; imports of this process are made before the clock starts."""
    with tempfile.TemporaryDirectory() as folder:
        _do(_write_rows(Path(folder) / "one", 1), "none" if method in ("header", "decode", "open") else method, 0)
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            for pid in children():
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        _do(path, method, workers)
        seconds = time.perf_counter() - begun
    finally:
        ended.set()
        watcher.join()
    return {"seconds": seconds, "peak": peak_mib(), "total": peak_mib() + sum(peaks.values())}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))

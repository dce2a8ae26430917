"""Measure `convkit convert cauldron` on Parquet: peak memory by the number of rows, and speed.

Rows have the shape of The Cauldron: one turn, and one JPEG of 480x360 pixels and about 38 kB. The images are a few
generated ones, each with a comment of the row's number, so that no two rows have the same bytes. Every conversion is a
fresh process with 2 workers.

Speed is compared with writing the images alone: 2 processes read the same row groups with pyarrow and write the image
files, without checks, digests or rows. Both wait for the disk once at the end. The speed of one more row is the
difference between many and few rows, so that start-up cancels out.

Usage of the measured processes: python -m benchmarks.parquet METHOD SOURCE OUT_DIR
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import peaks
from benchmarks.peaks import Peaks
from benchmarks.processes import json_output, seconds
from benchmarks.report import Figure, Result, figure

FEW, MANY = 10_000, 100_000
ROWS_PER_FILE = 10_000
ROWS_PER_GROUP = 1000
WORKERS = 2
ROUNDS = 3
MIN_SPEED = 0.7
DISTINCT_IMAGES = 64
WIDTH, HEIGHT = 480, 360

Round = tuple[dict[int, Peaks], dict[tuple[str, int], float]]


def run() -> Result:
    """Measure both sizes in turn, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = {count: _write(work / str(count), count) for count in (FEW, MANY)}
        rounds = [_round(sources, work / f"round{first}", first) for first in range(ROUNDS)]
    setting = {"rows": [FEW, MANY], "rows per group": ROWS_PER_GROUP, "workers": WORKERS, "rounds": ROUNDS}
    setting["bytes per image"] = len(_jpeg(0))
    memory = peaks.figures([found for found, _ in rounds], FEW, MANY, "rows")
    return Result("parquet", setting, [*memory, *_speed([times for _, times in rounds])])


def _write(folder: Path, count: int) -> Path:
    folder.mkdir()
    parquet = import_module("pyarrow.parquet")
    for number, first in enumerate(range(0, count, ROWS_PER_FILE)):
        path = folder / f"train-{number:05d}-of-{count // ROWS_PER_FILE:05d}.parquet"
        parquet.write_table(_table(first), path, row_group_size=ROWS_PER_GROUP)
    return folder


def _table(first: int) -> Any:
    rows = range(first, first + ROWS_PER_FILE)
    images = [[{"bytes": _jpeg(row), "path": None}] for row in rows]
    texts = [[{"user": f"What is in image {row}?", "assistant": "Clouds.", "source": "made"}] for row in rows]
    return import_module("pyarrow").table({"images": images, "texts": texts})


def _jpeg(row: int) -> bytes:
    """Return a distinct JPEG per row, from few encoded images."""
    image = _noise_image(row % DISTINCT_IMAGES)
    comment = f"{row:08d}".encode()
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + image[2:]


@cache
def _noise_image(seed: int) -> bytes:
    import numpy as np
    import PIL.Image

    random = np.random.default_rng(seed)
    clouds = PIL.Image.fromarray(random.integers(0, 256, (HEIGHT // 15, WIDTH // 15, 3), dtype=np.uint8))
    smooth = np.asarray(clouds.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)).astype(int)
    pixels = (smooth + random.integers(-12, 13, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _round(sources: dict[int, Path], work: Path, first: int) -> Round:
    """Measure memory and times of one round. The order of the methods alternates between rounds."""
    found: dict[int, Peaks] = {}
    times: dict[tuple[str, int], float] = {}
    for count, source in sources.items():
        found[count] = json_output("-m", "benchmarks.parquet", "peaks", str(source), str(work / f"peaks{count}"))
        for method in ("convkit", "writing")[:: -1 if first % 2 else 1]:
            out_dir = work / f"{method}{count}"
            times[method, count] = seconds("-m", "benchmarks.parquet", method, str(source), str(out_dir))
            if (images := sum(1 for _ in out_dir.rglob("*.jpg"))) != count:
                raise RuntimeError(f"{method} wrote {images} images of {count} rows")
    return found, times


def _speed(rounds: list[dict[tuple[str, int], float]]) -> list[Figure]:
    def one_more(times: dict[tuple[str, int], float], method: str) -> float:
        return times[method, MANY] - times[method, FEW]

    more = [one_more(times, "writing") / one_more(times, "convkit") for times in rounds]
    whole = [times["writing", MANY] / times["convkit", MANY] for times in rounds]
    rate = [(MANY - FEW) / one_more(times, "convkit") for times in rounds]
    return [
        figure("speed, one more row", "writing the images", more, at_least=MIN_SPEED),
        figure(f"speed, {MANY} rows, whole command", "writing the images", whole),
        figure("rows per second, one more row", "", rate, unit="rows/s"),
    ]


def convert(source: Path, out_dir: Path) -> None:
    """Convert as `convkit convert cauldron` does."""
    from convkit.convert.run import convert
    from convkit.converters.cauldron import Cauldron, CauldronOptions

    convert(Cauldron, str(source), CauldronOptions.model_validate({}), out_dir, workers=WORKERS)


def convert_and_measure(source: Path, out_dir: Path) -> Peaks:
    """Convert, and return the peak memory."""
    return peaks.measure_peaks(lambda: convert(source, out_dir))


def write_images(source: Path, out_dir: Path) -> None:
    """Write the image files alone, as the method to compare with."""
    out_dir.mkdir(parents=True)
    parquet = import_module("pyarrow.parquet")
    files = sorted(source.iterdir())
    jobs = [(file, k, out_dir) for file in files for k in range(parquet.ParquetFile(file).metadata.num_row_groups)]
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        list(pool.map(_write_group, jobs))
    os.sync()


def _write_group(job: tuple[Path, int, Path]) -> None:
    for name, data in _images(*job):
        name.write_bytes(data)


def _images(file: Path, group: int, out_dir: Path) -> Iterator[tuple[Path, bytes]]:
    number = 0
    parquet = import_module("pyarrow.parquet").ParquetFile(file)
    for batch in parquet.iter_batches(row_groups=[group], columns=["images", "texts"]):
        for row in batch.to_pylist():
            for image in row["images"]:
                yield out_dir / f"{file.stem}-{group}-{number}.jpg", image["bytes"]
                number += 1


METHODS = {"convkit": convert, "peaks": convert_and_measure, "writing": write_images}

if __name__ == "__main__":
    print(json.dumps(METHODS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))

"""`cauldron` on Parquet: peak memory by the number of rows, and speed against writing the images alone.

Rows of The Cauldron's shape: one turn each, and one JPEG of 480x360 pixels and about 38 kB. A few pictures are made, of
coloured clouds and noise, and each row's has a comment with its number, so that no two rows have the same bytes. Every
conversion is a fresh process with 2 workers. The contender does the least that can be done: it reads the same row
groups with pyarrow in 2 processes and writes the image files, with no check, no digest and no rows; at the end it
waits for the disk once, as convkit does. The speed of one more row is the difference between many rows and few, so that
start-up cancels out.

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
from benchmarks.processes import answer, seconds
from benchmarks.report import Figure, Result, figure

FEW, MANY = 10_000, 100_000
ROWS_A_FILE = 10_000
ROWS_A_GROUP = 1000
WORKERS = 2
ROUNDS = 3
LEAST_SPEED = 0.7
PICTURES = 64
WIDTH, HEIGHT = 480, 360

Round = tuple[dict[int, Peaks], dict[tuple[str, int], float]]


def run() -> Result:
    """Measure both sizes in turn."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = {count: _write(work / str(count), count) for count in (FEW, MANY)}
        rounds = [_round(sources, work / f"round{first}", first) for first in range(ROUNDS)]
    setting = {"rows": [FEW, MANY], "rows a group": ROWS_A_GROUP, "workers": WORKERS, "rounds": ROUNDS}
    setting["bytes an image"] = len(_jpeg(0))
    memory = peaks.figures([found for found, _ in rounds], FEW, MANY, "rows")
    return Result("parquet", setting, [*memory, *_speed([times for _, times in rounds])])


def _write(folder: Path, count: int) -> Path:
    folder.mkdir()
    parquet = import_module("pyarrow.parquet")
    for number, first in enumerate(range(0, count, ROWS_A_FILE)):
        path = folder / f"train-{number:05d}-of-{count // ROWS_A_FILE:05d}.parquet"
        parquet.write_table(_table(first), path, row_group_size=ROWS_A_GROUP)
    return folder


def _table(first: int) -> Any:
    rows = range(first, first + ROWS_A_FILE)
    images = [[{"bytes": _jpeg(row), "path": None}] for row in rows]
    texts = [[{"user": f"What is in picture {row}?", "assistant": "Clouds.", "source": "made"}] for row in rows]
    return import_module("pyarrow").table({"images": images, "texts": texts})


def _jpeg(row: int) -> bytes:
    """A picture of its own for each row, without encoding one for each."""
    picture = _picture(row % PICTURES)
    comment = f"{row:08d}".encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + picture[2:]


@cache
def _picture(seed: int) -> bytes:
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
    """Memory and times of one round; the contenders change places from round to round."""
    found: dict[int, Peaks] = {}
    times: dict[tuple[str, int], float] = {}
    for count, source in sources.items():
        found[count] = answer("-m", "benchmarks.parquet", "watched", str(source), str(work / f"watched{count}"))
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
        figure("speed, one more row", "writing the images", more, at_least=LEAST_SPEED),
        figure(f"speed, {MANY} rows, whole command", "writing the images", whole),
        figure("rows a second, one more row", "", rate, unit="rows/s"),
    ]


def convert(source: Path, out_dir: Path) -> None:
    """All that `convkit convert cauldron` does."""
    from convkit.convert.run import convert
    from convkit.converters.cauldron import Cauldron, CauldronOptions

    convert(Cauldron, str(source), CauldronOptions.model_validate({}), out_dir, workers=WORKERS)


def convert_watched(source: Path, out_dir: Path) -> Peaks:
    """Convert, and give the peaks."""
    return peaks.watched(lambda: convert(source, out_dir))


def write_images(source: Path, out_dir: Path) -> None:
    """The contender."""
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


METHODS = {"convkit": convert, "watched": convert_watched, "writing": write_images}

if __name__ == "__main__":
    print(json.dumps(METHODS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))

"""Compare `convkit convert ucf101` with the recipe's method, and with decoding alone.

Methods, run on the same clips in turn in every round, each in a fresh process:
    convkit      the whole command with 2 workers: every frame decoded, rows checked, all files synced to disk
    recipe       PyAV in one process, decoding up to the last sampled frame (benchmarks.recipe_convert)
    recipe, all  the same, but decoding every frame, as convkit does to count the frames
    recipe, RGB  the same, but converting every frame, as a script does that collects a clip and then samples it
    decoding     OpenCV's decoder alone, 2 processes with one thread each (benchmarks.decode)
    encoding     the same, plus the sampled frames encoded as JPEG in memory; no files, names or checks

Two ratios per method: the whole process for 120 clips, and one more clip. One more clip is the difference between many
and few clips, so start-up cancels out; it is what counts for a large source. The last ratios compare decoding and
encoding alone with two methods. They are the upper bound for these processors with OpenCV.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import clips
from benchmarks.processes import seconds
from benchmarks.report import Figure, Result, figure

CLIPS = 120
MANY, FEW = 1080, 30
WORKERS = 2
FRAMES = 8
JPEG_QUALITY = 75
"""Pillow's default, which the recipe uses."""
ROUNDS = 7

Method = Callable[[Path, Path], float]
"""Converts a source to an existing empty folder, and returns the seconds."""
Times = dict[tuple[str, int], float]
"""Seconds by method and number of clips."""


def _convkit(source: Path, out_dir: Path) -> float:
    paths = ("--source", str(source), "--out_dir", str(out_dir))
    options = ("--workers", str(WORKERS), "--jpeg_quality", str(JPEG_QUALITY))
    return seconds("-m", "convkit", "convert", "ucf101", *paths, *options)


def _recipe(method: str) -> Method:
    return lambda source, out_dir: seconds("-m", "benchmarks.recipe_convert", str(source), str(out_dir), method)


def _decoding(sampled: int) -> Method:
    return lambda source, out_dir: seconds(
        "-m", "benchmarks.decode", str(source), *map(str, (WORKERS, sampled, JPEG_QUALITY))
    )


METHODS: dict[str, tuple[Method, int, int]] = {
    "convkit": (_convkit, CLIPS, MANY),
    "recipe": (_recipe("sampled"), FEW, CLIPS),
    "recipe, all": (_recipe("decoded"), FEW, CLIPS),
    "recipe, RGB": (_recipe("converted"), FEW, CLIPS),
    "decoding": (_decoding(0), CLIPS, MANY),
    "encoding": (_decoding(FRAMES), CLIPS, MANY),
}
"""Each method with its two numbers of clips. Slow methods use fewer clips; their time grows linearly."""

TARGETS = {"recipe, all": 4.0, "decoding": 0.8}


def run() -> Result:
    """Measure all methods, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        real = clips.real_clips()
        originals = real or clips.generate_clips(work / "made")
        sources = {count: clips.make_source(originals, count, work / str(count)) for count in (FEW, CLIPS, MANY)}
        rounds = [_round(sources, work / f"round{first}", first) for first in range(ROUNDS)]
    setting = {
        "clips": CLIPS,
        "data": "copies of a clip of UCF-101" if real else "generated clips",
        "workers": WORKERS,
        "rounds": ROUNDS,
    }
    figures = [f for name in METHODS if name != "convkit" for f in _figures(rounds, name)]
    for name in ("recipe, all", "decoding"):
        bound = [_one_more(times, name) / _one_more(times, "encoding") for times in rounds]
        figures.append(figure("decoding and encoding alone, one more clip", name, bound))
    return Result("convert", setting, figures)


def _round(sources: dict[int, Path], work: Path, first: int) -> Times:
    """Run every method on both of its sizes, starting with another method in each round.

    Outputs are deleted only at the end: ext4 creates files slowly where others were deleted shortly before.
    """
    times: Times = {}
    names = list(METHODS)
    for name in names[first % len(names) :] + names[: first % len(names)]:
        method, *sizes = METHODS[name]
        for size in sizes:
            out_dir = work / f"{name}, {size}"
            out_dir.mkdir(parents=True)
            times[name, size] = method(sources[size], out_dir)
            _check(name, out_dir, size)
    return times


def _check(name: str, out_dir: Path, size: int) -> None:
    """Check that a method wrote every image."""
    images = sum(1 for _ in out_dir.glob("images/*/*/*.jpg"))
    if images != (0 if name in ("decoding", "encoding") else size * FRAMES):
        raise RuntimeError(f"{name} wrote {images} images of {size} clips")


def _figures(rounds: list[Times], name: str) -> list[Figure]:
    whole = [times[name, CLIPS] / times["convkit", CLIPS] for times in rounds]
    more = [_one_more(times, name) / _one_more(times, "convkit") for times in rounds]
    target = TARGETS.get(name)
    return [
        figure("speed, one more clip", name, more, at_least=target),
        figure(f"speed, {CLIPS} clips, whole command", name, whole),
    ]


def _one_more(times: Times, name: str) -> float:
    _, few, many = METHODS[name]
    return (times[name, many] - times[name, few]) / (many - few)

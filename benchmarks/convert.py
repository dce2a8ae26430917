"""`convkit convert ucf101` against the recipe's method, and against decoding alone.

Contenders, on the same clips in the same run, taken in turn in every round, each in a fresh process:
    convkit      the whole command with 2 workers: every frame decoded, rows checked, everything synced to disk
    recipe       PyAV in one process, decoding up to the last sampled frame (benchmarks.recipe)
    recipe, all  the same, but decoding every frame, as convkit does to know how many there are
    recipe, RGB  the same, but converting every frame, as a script does that collects a clip and then samples it
    decoding     OpenCV's decoder alone, one thread each in 2 processes (benchmarks.decode)
    encoding     the same, and the sampled frames as JPEG files in memory: nothing is written, named, or checked

Two figures each: of the whole process for 120 clips, and of one more clip, which is what counts for a large source:
the difference between many clips and few, so that start-up cancels out. The last figures are how decoding and encoding
alone fare against the recipe that decodes every frame, and against decoding: more than that is not to be had from
these processors with OpenCV.
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
"""What Pillow writes for the recipe, which does not say."""
ROUNDS = 7

Contender = Callable[[Path, Path], float]
"""Seconds, from a source and an output folder that exists and is empty."""
Times = dict[tuple[str, int], float]
"""Seconds by contender and number of clips."""


def _convkit(source: Path, out_dir: Path) -> float:
    paths = ("--source", str(source), "--out_dir", str(out_dir))
    options = ("--workers", str(WORKERS), "--jpeg_quality", str(JPEG_QUALITY))
    return seconds("-m", "convkit", "convert", "ucf101", *paths, *options)


def _recipe(method: str) -> Contender:
    return lambda source, out_dir: seconds("-m", "benchmarks.recipe", str(source), str(out_dir), method)


def _decoding(sampled: int) -> Contender:
    return lambda source, out_dir: seconds(
        "-m", "benchmarks.decode", str(source), *map(str, (WORKERS, sampled, JPEG_QUALITY))
    )


CONTENDERS: dict[str, tuple[Contender, int, int]] = {
    "convkit": (_convkit, CLIPS, MANY),
    "recipe": (_recipe("sampled"), FEW, CLIPS),
    "recipe, all": (_recipe("decoded"), FEW, CLIPS),
    "recipe, RGB": (_recipe("converted"), FEW, CLIPS),
    "decoding": (_decoding(0), CLIPS, MANY),
    "encoding": (_decoding(FRAMES), CLIPS, MANY),
}
"""Each with the two numbers of clips it runs on. What takes long runs on fewer: its time is a straight line."""

TARGETS = {"recipe, all": 4.0, "decoding": 0.8}


def run() -> Result:
    """Measure all contenders, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        real = clips.real_clips()
        originals = real or clips.made_clips(work / "made")
        sources = {count: clips.lay_out(originals, count, work / str(count)) for count in (FEW, CLIPS, MANY)}
        rounds = [_round(sources, work / f"round{first}", first) for first in range(ROUNDS)]
    setting = {
        "clips": CLIPS,
        "data": "copies of a clip of UCF-101" if real else "made clips",
        "workers": WORKERS,
        "rounds": ROUNDS,
    }
    figures = [f for name in CONTENDERS if name != "convkit" for f in _figures(rounds, name)]
    for name in ("recipe, all", "decoding"):
        bound = [_one_more(times, name) / _one_more(times, "encoding") for times in rounds]
        figures.append(figure("decoding and encoding alone, one more clip", name, bound))
    return Result("convert", setting, figures)


def _round(sources: dict[int, Path], work: Path, first: int) -> Times:
    """Every contender on both its sizes; another one begins each round.

    Nothing is deleted before the end: ext4 is slow to create files where others were deleted a moment ago.
    """
    times: Times = {}
    names = list(CONTENDERS)
    for name in names[first % len(names) :] + names[: first % len(names)]:
        contender, *sizes = CONTENDERS[name]
        for size in sizes:
            out_dir = work / f"{name}, {size}"
            out_dir.mkdir(parents=True)
            times[name, size] = contender(sources[size], out_dir)
            _check(name, out_dir, size)
    return times


def _check(name: str, out_dir: Path, size: int) -> None:
    """A contender that leaves work out has won nothing."""
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
    _, few, many = CONTENDERS[name]
    return (times[name, many] - times[name, few]) / (many - few)

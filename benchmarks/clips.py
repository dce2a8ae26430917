"""Make video sources in the layout of UCF-101's subset, with many names for few distinct files."""

import os
import runpy
import shutil
from itertools import cycle
from pathlib import Path

from benchmarks.processes import ROOT

CLASSES = (
    "ApplyEyeMakeup",
    "ApplyLipstick",
    "Archery",
    "BabyCrawling",
    "BalanceBeam",
    "BandMarching",
    "BaseballPitch",
    "Basketball",
    "BasketballDunk",
    "BenchPress",
)
CLIPS_PER_GROUP = 4
SPLITS = ("train",) * 4 + ("val", "test")
"""The split of each group of clips, repeated every six groups."""


def real_clips() -> list[Path]:
    """Return the UCF-101 clips in the test data (env CONVKIT_TEST_DATA), or none if there are no such data."""
    data = Path(os.environ.get("CONVKIT_TEST_DATA", ROOT.parent / "shared"))
    return sorted((data / "data" / "ucf101" / "videos").glob("**/*.avi"))


def generate_clips(folder: Path) -> list[Path]:
    """Generate the small clips of the test fixtures."""
    runpy.run_path(str(ROOT / "tests" / "fixtures" / "make_clips.py"))["make"](folder, 1)
    return sorted(folder.glob("**/*.avi"))


def make_source(clips: list[Path], count: int, folder: Path) -> Path:
    """Hard-link copies of the clips under `count` names: `{train,val,test}/<Class>/v_<Class>_gNN_cNN.avi`."""
    copies = folder / "copies"
    copies.mkdir(parents=True)
    originals = cycle([shutil.copyfile(clip, copies / f"{n}{clip.suffix}") for n, clip in enumerate(clips)])
    source = folder / "source"
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        group, clip = divmod(number // len(CLASSES), CLIPS_PER_GROUP)
        path = source / SPLITS[group % len(SPLITS)] / label / f"v_{label}_g{group + 1:02d}_c{clip + 1:02d}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(next(originals), path)
    return source

"""Sources of clips for the benchmarks: many names for few files, in the layout of UCF-101's subset."""

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
CLIPS_A_GROUP = 4
PLACES = ("train",) * 4 + ("val", "test")
"""Of six groups of a class, four are train."""


def real_clips() -> list[Path]:
    """The clips of UCF-101 among the test data (env CONVKIT_TEST_DATA); none where there is no such data."""
    data = Path(os.environ.get("CONVKIT_TEST_DATA", ROOT.parent / "shared"))
    return sorted((data / "data" / "ucf101" / "videos").glob("**/*.avi"))


def made_clips(folder: Path) -> list[Path]:
    """The small clips of the test fixtures, made anew."""
    runpy.run_path(str(ROOT / "tests" / "fixtures" / "make_clips.py"))["make"](folder, 1)
    return sorted(folder.glob("**/*.avi"))


def lay_out(clips: list[Path], count: int, folder: Path) -> Path:
    """Give `count` names to copies of the clips: `{train,val,test}/<Class>/v_<Class>_gNN_cNN.avi`."""
    copies = folder / "copies"
    copies.mkdir(parents=True)
    originals = cycle([shutil.copyfile(clip, copies / f"{n}{clip.suffix}") for n, clip in enumerate(clips)])
    source = folder / "source"
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        group, clip = divmod(number // len(CLASSES), CLIPS_A_GROUP)
        path = source / PLACES[group % len(PLACES)] / label / f"v_{label}_g{group + 1:02d}_c{clip + 1:02d}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(next(originals), path)
    return source

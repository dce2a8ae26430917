"""Does the fast path learn what the plain path learns? The loss of fifty steps, both ways, in one picture.

Run: python -m benchmarks.curves FOLDER [--json FILE] [--png FILE] [--steps N] [--batch_size N] [OPTION OF TRAIN...]

The model is that of `train_gpu`, and so are the pages: each asks for the first words of its question, which is learnt
soon. `fast` is what `convkit train --optim adamw_bf16` does with the options given, with `--use_lora` also in float8;
`plain` does one row at a time, compiles nothing and keeps moments and gradients in float32; `plain again` is plain with
another seed for new adapters and the order of rows, and shows how much of a difference means nothing. With --geometry
tiny --num_crops 1 it is rehearsed on a CPU. With --model CHECKPOINT --data_dir DIRECTORY it is another model and data.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.train_gpu import prepare, run_to
from convkit.report.curves import chart
from convkit.report.plot import png
from convkit.train.environment import versions

PLAIN = ["--optim", "adamw", "--batch_size_per_gpu", "1", "--no_compile"]
FAST = ["--optim", "adamw_bf16"]
WAYS = {
    "fast": FAST,
    "fast, float8": [*FAST, "--fp8"],
    "plain": PLAIN,
    "plain again": [*PLAIN, "--seed", "1"],
}
COMMON = ["--bf16", "--warmup_steps", "5", "--save_steps", "100000", "--no_trial_checkpoint", "--no_tqdm"]


def main() -> None:
    """Train all ways in turn; what was done is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/curves.json"))
    parser.add_argument("--png", type=Path, default=Path("docs/curves.png"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--geometry", choices=["full", "tiny"], default="full")
    parser.add_argument("--num_crops", type=int, default=16)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data_dir", type=Path)
    told, extra = parser.parse_known_args()
    if told.model is None:
        model, data = prepare(told.folder, told.batch_size * told.steps, told.num_crops, told.geometry)
        extra += ["--num_crops", str(told.num_crops)]
    else:
        model, data = told.model, told.data_dir
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "batch": told.batch_size,
        "options": [*COMMON, *extra],
        "losses": {},
    }
    ways = {way: options for way, options in WAYS.items() if "--fp8" not in options or "--use_lora" in extra}
    for way, options in ways.items():
        run = told.folder / way.replace(" ", "-")
        shutil.rmtree(run, ignore_errors=True)
        places = ["--data_dir", str(data), "--model", str(model), "--output_dir", str(run)]
        numbers = ["--batch_size", str(told.batch_size)]
        command = [sys.executable, "-m", "convkit", "train", *places, *COMMON, *numbers, *extra, *options]
        found["losses"][way] = [step["loss"] for step in run_to(command, run, kill_at=0).log][: told.steps]
        found["differences"] = _differences(found["losses"])
        told.json.write_text(json.dumps(found, indent=1) + "\n")
        told.png.write_bytes(_picture(found["losses"]))


def _differences(losses: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each way from plain: the largest, and the mean, over all steps."""
    plain = losses.get("plain", [])
    apart = {way: [abs(a - b) for a, b in zip(curve, plain, strict=False)] for way, curve in losses.items()}
    return {way: {"largest": max(d), "mean": fmean(d)} for way, d in apart.items() if d and way != "plain"}


def _picture(losses: dict[str, Sequence[float]]) -> bytes:
    return png([chart("Loss", {way: list(enumerate(curve, 1)) for way, curve in losses.items()}, marked=True)])


if __name__ == "__main__":
    main()

"""Does the fast path learn what the plain path learns? The loss of fifty steps, both ways, in one picture.

Run: python -m benchmarks.curves FOLDER [--json FILE] [--png FILE] [--steps N] [--batch_size N] [OPTION OF TRAIN...]

The model is that of `train_gpu`, and so are the pages: each asks for the first words of its question, which is learnt
soon. `fast` is what `convkit train --optim adamw_bf16` does with the options given, with `--use_lora` also in float8;
`plain` does one row at a time, compiles nothing and keeps moments and gradients in float32; `plain again` is plain with
another seed for new adapters and the order of rows, and shows how much of a difference means nothing. The picture shows
differences from plain beside the losses. With --geometry tiny --num_crops 1 it is rehearsed on a CPU.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.train_gpu import prepare, run_to
from convkit.report.curves import Chart, chart
from convkit.report.plot import png
from convkit.train.distributed.environment import versions

PLAIN = ["--optim", "adamw", "--batch_size_per_gpu", "1", "--no_compile"]
FAST = ["--optim", "adamw_bf16"]
WAYS = {
    "fast": FAST,
    "fast, float8": [*FAST, "--fp8"],
    "plain": PLAIN,
    "plain again": [*PLAIN, "--seed", "1"],
}
Losses = dict[str, list[float]]
"""Of each step, by ways."""
COMMON = ["--bf16", "--warmup_steps", "5", "--save_steps", "100000", "--no_check_checkpoint", "--no_tqdm"]


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
    told, extra = parser.parse_known_args()
    model, data = prepare(told.folder, told.batch_size * told.steps, told.num_crops, told.geometry)
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
        numbers = ["--num_crops", str(told.num_crops), "--batch_size", str(told.batch_size)]
        command = [sys.executable, "-m", "convkit", "train", *places, *COMMON, *numbers, *extra, *options]
        found["losses"][way] = [step["loss"] for step in run_to(command, run, kill_at=0).log]
        found["differences"] = differences(found["losses"], "plain")
        told.json.write_text(json.dumps(found, indent=1) + "\n")
        told.png.write_bytes(_picture(found["losses"]))


def differences(losses: Losses, plain: str) -> dict[str, dict[str, float]]:
    """Of each way from that one: the largest, the mean, and the mean with its sign, over all steps."""
    return {
        way: {"largest": max(map(abs, d)), "mean": fmean(map(abs, d)), "signed": fmean(d)}
        for way, d in _apart(losses, plain).items()
        if way != plain
    }


def _apart(losses: Losses, plain: str) -> Losses:
    exact = losses.get(plain, [])
    apart = {way: [a - b for a, b in zip(curve, exact, strict=False)] for way, curve in losses.items()}
    return {way: d for way, d in apart.items() if d}


def _picture(losses: Losses) -> bytes:
    both = {"Loss": losses, "Difference from plain": _apart(losses, "plain")}
    return png([_chart(title, curves) for title, curves in both.items() if curves])


def _chart(title: str, curves: Losses) -> Chart:
    return chart(title, {way: [(step, y) for step, y in enumerate(c, 1)] for way, c in curves.items()}, marked=True)


if __name__ == "__main__":
    main()

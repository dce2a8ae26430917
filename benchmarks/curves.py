"""Compare the loss curves of fast and plain training over fifty steps, and plot them in one picture.

Run: python -m benchmarks.curves FOLDER [--json FILE] [--png FILE] [--steps N] [--batch_size N] [OPTION OF TRAIN...]

The model and the pages are those of `train_gpu`. Each page asks for the first words of its question, which a model
learns within a few steps.

fast         `convkit train --optim adamw_bf16` with the given options; with `--use_lora` also in float8
plain        one row per micro-batch, nothing compiled, moments and gradients in float32
plain again  plain with another seed for new adapters and the order of rows: the difference due to chance

The picture shows the losses and their differences from plain. To try it on a CPU: --model_size tiny --num_crops 1.
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
from convkit.report.curves import Chart, make_chart
from convkit.report.plot import draw_png
from convkit.train.distributed.environment import versions

PLAIN = ["--optim", "adamw", "--batch_size_per_gpu", "1", "--no_compile"]
FAST = ["--optim", "adamw_bf16"]
VARIANTS = {
    "fast": FAST,
    "fast, float8": [*FAST, "--fp8"],
    "plain": PLAIN,
    "plain again": [*PLAIN, "--seed", "1"],
}
Losses = dict[str, list[float]]
"""The loss of each step, by variant."""
COMMON = ["--bf16", "--warmup_steps", "5", "--save_steps", "100000", "--no_check_checkpoint", "--no_tqdm"]


def main() -> None:
    """Train each variant in turn, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/curves.json"))
    parser.add_argument("--png", type=Path, default=Path("docs/curves.png"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--model_size", choices=["full", "tiny"], default="full")
    parser.add_argument("--num_crops", type=int, default=16)
    given, extra = parser.parse_known_args()
    model, data = prepare(given.folder, given.batch_size * given.steps, given.num_crops, given.model_size)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "batch": given.batch_size,
        "options": [*COMMON, *extra],
        "losses": {},
    }
    variants = {
        variant: options for variant, options in VARIANTS.items() if "--fp8" not in options or "--use_lora" in extra
    }
    for variant, options in variants.items():
        run = given.folder / variant.replace(" ", "-")
        shutil.rmtree(run, ignore_errors=True)
        paths = ["--data_dir", str(data), "--model", str(model), "--output_dir", str(run)]
        numbers = ["--num_crops", str(given.num_crops), "--batch_size", str(given.batch_size)]
        command = [sys.executable, "-m", "convkit", "train", *paths, *COMMON, *numbers, *extra, *options]
        found["losses"][variant] = [step["loss"] for step in run_to(command, run, kill_at=0).log]
        found["differences"] = differences(found["losses"], "plain")
        given.json.write_text(json.dumps(found, indent=1) + "\n")
        given.png.write_bytes(_picture(found["losses"]))


def differences(losses: Losses, plain: str) -> dict[str, dict[str, float]]:
    """Return each variant's differences from the plain one over all steps: largest, mean absolute, and mean."""
    return {
        variant: {"largest": max(map(abs, d)), "mean": fmean(map(abs, d)), "signed": fmean(d)}
        for variant, d in _differences(losses, plain).items()
        if variant != plain
    }


def _differences(losses: Losses, plain: str) -> Losses:
    exact = losses.get(plain, [])
    found = {variant: [a - b for a, b in zip(curve, exact, strict=False)] for variant, curve in losses.items()}
    return {variant: d for variant, d in found.items() if d}


def _picture(losses: Losses) -> bytes:
    both = {"Loss": losses, "Difference from plain": _differences(losses, "plain")}
    return draw_png([_chart(title, curves) for title, curves in both.items() if curves])


def _chart(title: str, curves: Losses) -> Chart:
    return make_chart(
        title, {name: [(step, y) for step, y in enumerate(c, 1)] for name, c in curves.items()}, marked=True
    )


if __name__ == "__main__":
    main()

"""How fast training is on one GPU: `convkit bench train` by many options, in turn.

Run: python -m benchmarks.train_speed [--results FOLDER] [--pages DIRECTORY] [--limit SECONDS] [NAME...] [-- OPTION...]

Each name is a process of its own, which writes `bench_<name>.json`; what a process that ran out of time had measured is
there. OPTIONs of `convkit bench train` are for all of them. Names of groups stand for all of theirs:

methods     full, frozen, lora, qlora, each with the recipe's way beside it; and lora in float8
memory      lora in less than the 16 GB, and qlora within the 10 GB, that the recipe states
workloads   lora on videos and on a mixture, with the recipe's way beside it
disk        lora on --pages, a dataset directory that was converted from real pages
alone       lora with everything that makes it fast, and without one of these things, each of the same run; but with
            peft's adapters go their dropout, with AdamW in float32 autocast, and deterministic leaves out compiling and
            cuDNN together; what is not compiled keeps more, and may need more than 80 GB

It is rehearsed on a CPU with `--results FOLDER -- --geometry tiny --num_crops 1 --batch_size 4 --max_tokens 1500`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import ROOT

COMMON = "--bf16 --optim adamw_bf16 --batch_size 24 --steps 3 --warm 1 --no_tqdm"
RECIPE = "--baseline recipe --baseline_steps 1"
FITS = "--memory_limit 68"
"""On a card of 80 GB."""
DOCUMENTS = "--max_tokens 10300 --gradient_checkpointing none"
LORA = f"--method lora {DOCUMENTS}"
GROUPS = {
    "methods": {
        "full": f"--method full --max_tokens 7700 {FITS} {RECIPE}",
        "frozen": f"--method frozen {DOCUMENTS} {RECIPE}",
        "lora": f"{LORA} {RECIPE}",
        "lora_fp8": f"{LORA} --fp8",
        "qlora": f"--method qlora {DOCUMENTS} {RECIPE}",
    },
    "memory": {
        "lora_16": f"{LORA} --gradient_checkpointing all",
        "qlora_10": f"--method qlora {DOCUMENTS} --gradient_checkpointing all",
    },
    "workloads": {
        "video": f"--method lora --workload video --max_tokens 12300 {FITS} {RECIPE}",
        "mixed": f"--method lora --workload mixed --max_tokens 12300 {FITS} {RECIPE}",
    },
    "disk": {"pages": LORA},
    "alone": {
        "everything": LORA,
        "unpacked": f"{LORA} --batch_size_per_gpu 1",
        "uncompiled": f"{LORA} --no_compile",
        "peft_adapters": f"{LORA} --lora_dropout 0.01",
        "float32_adapters": f"{LORA} --optim adamw",
        "cheap_again": "--method lora --max_tokens 10300 --memory_limit 55",
        "deterministic": f"{LORA} --deterministic",
    },
}
RUNS = {name: options for group in GROUPS.values() for name, options in group.items()}


def main() -> None:
    """Run what is named, and show a line for each as it comes."""
    told = arguments(sys.argv[1:])
    print(f"{'':18}img/s  recipe  ratio    MFU    GiB   idle", flush=True)
    for name in told.names:
        file = told.results / f"bench_{name}.json"
        pages = ["--data_dir", str(told.pages)] if name == "pages" else []
        with TemporaryDirectory(prefix="convkit-bench-") as scratch:
            new = Path(scratch) / file.name
            options = [*COMMON.split(), *RUNS[name].split(), *pages, *told.extra, "--json", str(new)]
            said = _run(options, told.limit, scratch)
            if new.exists():  # what was measured before is kept until then
                shutil.copyfile(new, file)
                said = _line(json.loads(new.read_bytes())) + said
        print(f"{name:16}{said}", flush=True)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What is asked for, with groups as the runs in them, and what stands behind `--` as `extra`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*GROUPS, *RUNS]))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--pages", type=Path, help="needed for pages")
    parser.add_argument("--limit", type=float, default=600)
    end = given.index("--") if "--" in given else len(given)
    told = parser.parse_args(given[:end])
    told.extra = list(given[end + 1 :])
    if unknown := sorted(set(told.names) - set(GROUPS) - set(RUNS)):
        parser.error(f"no run {', '.join(unknown)}; there are: {', '.join([*GROUPS, *RUNS])}")
    groups = told.names or [name for name in GROUPS if name != "disk" or told.pages]
    told.names = [name for word in groups for name in GROUPS.get(word, [word])]
    if "pages" in told.names and not told.pages:
        parser.error("pages needs --pages, a dataset directory")
    told.results.mkdir(parents=True, exist_ok=True)
    return told


def _run(options: list[str], limit: float, scratch: str) -> str:
    """Measure; returns why there is less than there should be."""
    command = [sys.executable, "-m", "convkit", "bench", "train", *options]
    usual = os.environ | {"TMPDIR": scratch}  # a process that is killed leaves its data there
    try:
        done = subprocess.run(command, env=usual, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"  ended after {limit:.0f} s"
    return "" if done.returncode == 0 else "  " + " ".join(done.stderr.split())[-300:]


def _line(found: dict[str, dict[str, float]]) -> str:
    ours, recipe = found["convkit"], found.get("recipe")
    beside = f"{recipe['images_a_second']:8.2f}{found['ratio']:7.1f}" if recipe else " " * 15
    memory = f"{ours['allocated_gib']:7.1f}" if ours["allocated_gib"] is not None else ""
    idle = f"{ours['idle']:7.1%}" if ours["idle"] is not None else ""
    return f"{ours['images_a_second']:7.2f}{beside}{ours['mfu']:7.1%}{memory}{idle}"


if __name__ == "__main__":
    main()

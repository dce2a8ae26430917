"""Everything that docs/performance.md says of training on one GPU: `convkit bench train` by many options, in turn.

Run: python -m benchmarks.train_speed [--results FOLDER] [--pages DIRECTORY] [--limit SECONDS] [NAME...] [-- OPTION...]

Each name is a process of its own, which writes `bench_<name>.json`; what a process that ran out of time had measured is
there. Names of groups stand for all of theirs:

methods     full, frozen, lora, qlora, each with the recipe's way beside it
memory      lora and qlora within the memory that the recipe needs
workloads   lora on videos and on a mixture, with the recipe's way beside it
disk        lora on --pages, a dataset directory that was converted from real pages
alone       lora without one of the things that make it fast, each; to be compared with lora of the same run

With --geometry tiny it is rehearsed on a CPU.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import ROOT

COMMON = "--bf16 --optim adamw_bf16 --batch_size 32 --dataloader_num_workers 8 --steps 3 --warm 1 --no_tqdm"
RECIPE = "--baseline recipe --baseline_steps 1"
LORA = "--method lora --max_tokens 10300"
GROUPS = {
    "methods": {
        "full": f"--method full --max_tokens 7700 --batch_size 30 {RECIPE}",
        "frozen": f"--method frozen --max_tokens 10300 {RECIPE}",
        "lora": f"{LORA} {RECIPE}",
        "qlora": f"--method qlora --max_tokens 10300 {RECIPE}",
    },
    "memory": {
        "lora_16": "--method lora --max_tokens 5200 --memory_limit 14.9",
        "qlora_10": "--method qlora --max_tokens 5200 --memory_limit 9.3",
    },
    "workloads": {
        "video": f"--method lora --workload video --max_tokens 12300 {RECIPE}",
        "mixed": f"--method lora --workload mixed --max_tokens 12300 {RECIPE}",
    },
    "disk": {"pages": LORA},
    "alone": {
        "unpacked": f"{LORA} --batch_size_per_gpu 1",
        "uncompiled": f"{LORA} --no_compile",
        "peft_adapters": f"{LORA} --lora_dropout 0.01",
        "float32_adapters": f"{LORA} --optim adamw",
        "recomputed": f"{LORA} --checkpointing all",
        "deterministic": f"{LORA} --deterministic",
    },
}
RUNS = {name: options for group in GROUPS.values() for name, options in group.items()}


def main() -> None:
    """Run what is named, and show a line for each as it comes."""
    told, extra = arguments()
    print(f"{'':18}img/s  recipe  ratio    MFU    GiB   idle", flush=True)
    for name in told.names:
        file = told.results / f"bench_{name}.json"
        pages = ["--data_dir", str(told.pages)] if name == "pages" else []
        said = _run([*COMMON.split(), *RUNS[name].split(), *pages, *extra], file, told.limit)
        print(f"{name:16}" + (_line(file) if file.exists() else "") + (f"  {said}" if said else ""), flush=True)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """What was asked for, with groups as the runs in them; and options for all of these."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(GROUPS), metavar="NAME", help=", ".join([*GROUPS, *RUNS]))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--pages", type=Path, help="needed for pages, which is left out without")
    parser.add_argument("--limit", type=float, default=600)
    told, extra = parser.parse_known_args()
    if unknown := sorted(set(told.names) - set(GROUPS) - set(RUNS)):
        parser.error(f"no run {', '.join(unknown)}; there are: {', '.join([*GROUPS, *RUNS])}")
    names = [name for word in told.names for name in GROUPS.get(word, [word])]
    told.results.mkdir(parents=True, exist_ok=True)
    told.names = [name for name in names if name != "pages" or told.pages]
    return told, extra


def _run(options: list[str], file: Path, limit: float) -> str:
    """Measure; returns why there is less than there should be."""
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "convkit", "bench", "train", *options, "--json", str(file)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"ended after {limit:.0f} s"
    return "" if done.returncode == 0 else " ".join(done.stderr.split())[-300:]


def _line(file: Path) -> str:
    return "".join(_columns(json.loads(file.read_bytes())))


def _columns(found: dict[str, dict[str, float]]) -> Iterator[str]:
    ours, recipe = found["convkit"], found.get("recipe", {})
    yield f"{ours['images_a_second']:7.2f}"
    yield f"{recipe['images_a_second']:8.2f}{found['ratio']:7.1f}" if recipe else " " * 15
    yield f"{ours['mfu']:7.1%}"
    yield f"{ours['allocated_gib']:7.1f}{ours['idle']:7.1%}" if ours.get("allocated_gib") else ""


if __name__ == "__main__":
    main()

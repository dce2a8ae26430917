"""Measure training speed on one GPU: `convkit bench train` and the recipe's way, with many options in turn.

Run: python -m benchmarks.train_speed [--results FOLDER] [--pages DIRECTORY] [--limit SECONDS] [NAME...] [-- OPTION...]

Each name runs in its own process, which writes `bench_<name>.json`. If a process runs out of time, the results so far
are kept. OPTIONs of `convkit bench train` apply to all processes. A group name stands for all of its runs:

methods     full, frozen, lora and qlora, each compared with the recipe's way; and lora in float8
memory      lora in less than 16 GB and qlora in less than 10 GB, the memory that the recipe states
workloads   lora on videos and on a mixture, each compared with the recipe's way
disk        lora on --pages, a dataset directory converted from real pages
alone       lora with all optimizations, and without one of them, all in the same run. Three caveats: peft's adapters
            also lose their dropout; AdamW in float32 uses autocast; deterministic disables both compilation and cuDNN.
            Without compilation more activations are kept, which may need more than 80 GB.

To try it on a CPU: `--results FOLDER -- --model_size tiny --num_crops 1 --batch_size 4 --max_tokens 1500`.
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
from typing import Any

from benchmarks.processes import ROOT

COMMON = "--bf16 --optim adamw_bf16 --batch_size 24 --steps 3 --warmup_steps 1 --no_tqdm"
RECIPE = "--baseline_steps 1"
"""Also measure the recipe's way, with `benchmarks.compare_train`."""
FITS_80_GB = "--memory_limit 68"
DOCUMENTS = "--max_tokens 10300 --gradient_checkpointing none"
LORA = f"--method lora {DOCUMENTS}"
GROUPS = {
    "methods": {
        "full": f"--method full --max_tokens 7700 {FITS_80_GB} {RECIPE}",
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
        "video": f"--method lora --workload video --max_tokens 12300 {FITS_80_GB} {RECIPE}",
        "mixed": f"--method lora --workload mixed --max_tokens 12300 {FITS_80_GB} {RECIPE}",
    },
    "disk": {"pages": LORA},
    "alone": {
        "everything": LORA,
        "unpacked": f"{LORA} --batch_size_per_gpu 1",
        "uncompiled": f"{LORA} --no_compile",
        "peft_adapters": f"{LORA} --lora_dropout 0.01",
        "float32_adapters": f"{LORA} --optim adamw",
        "selective": "--method lora --max_tokens 10300 --memory_limit 55",
        "deterministic": f"{LORA} --deterministic",
    },
}
RUNS = {name: options for group in GROUPS.values() for name, options in group.items()}


def main() -> None:
    """Run the named measurements, and print a line per result."""
    given = arguments(sys.argv[1:])
    print(f"{'':18}img/s  recipe  ratio    MFU    GiB   idle", flush=True)
    for name in given.names:
        file = given.results / f"bench_{name}.json"
        pages = ["--data_dir", str(given.pages)] if name == "pages" else []
        with TemporaryDirectory(prefix="convkit-bench-") as scratch:
            new = Path(scratch) / file.name
            line = _run(command(name, [*pages, *given.extra, "--json", str(new)]), given.limit, scratch)
            if new.exists():  # otherwise keep the previous results
                shutil.copyfile(new, file)
                line = _line(json.loads(new.read_bytes())) + line
        print(f"{name:16}{line}", flush=True)


def command(name: str, extra: Sequence[str] = ()) -> list[str]:
    """Return the module and the options that measure a run: COMMON, the run's and `extra`; later ones win."""
    module = ["benchmarks.compare_train"] if RECIPE in RUNS[name] else ["convkit", "bench", "train"]
    return [*module, *_last_of_each([*COMMON.split(), *RUNS[name].split(), *extra])]


def _last_of_each(words: Sequence[str]) -> list[str]:
    """Drop all but the last occurrence of each option, because commands refuse repeated ones."""
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--").removeprefix("no_")
            options.pop(name, None)
            options[name] = [word]
        else:
            options[name].append(word)
    return [word for option in options.values() for word in option]


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Group names become their runs, and options after `--` become `extra`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*GROUPS, *RUNS]))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--pages", type=Path, help="dataset directory for the run `pages`")
    parser.add_argument("--limit", type=float, default=600, help="seconds per process")
    end = given.index("--") if "--" in given else len(given)
    parsed = parser.parse_args(given[:end])
    parsed.extra = list(given[end + 1 :])
    if unknown := sorted(set(parsed.names) - set(GROUPS) - set(RUNS)):
        parser.error(f"no run {', '.join(unknown)}; choose from {', '.join([*GROUPS, *RUNS])}")
    groups = parsed.names or [name for name in GROUPS if name != "disk" or parsed.pages]
    parsed.names = [name for word in groups for name in GROUPS.get(word, [word])]
    if "pages" in parsed.names and not parsed.pages:
        parser.error("pages needs --pages, a dataset directory")
    parsed.results.mkdir(parents=True, exist_ok=True)
    return parsed


def _run(module_and_options: list[str], limit: float, scratch: str) -> str:
    """Run a measurement, and return why its results are incomplete, or an empty string."""
    environment = os.environ | {"TMPDIR": scratch}  # so that a killed process leaves no data behind
    arguments = [sys.executable, "-m", *module_and_options]
    try:
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"  ended after {limit:.0f} s"
    return "" if done.returncode == 0 else "  " + " ".join(done.stderr.split())[-300:]


def _line(found: dict[str, Any]) -> str:
    ours, recipe = found["convkit"], found.get("recipe")
    compared = f"{recipe['images_per_second']:8.2f}{found['ratio']:7.1f}" if recipe else " " * 15
    memory = f"{ours['allocated_gib']:7.1f}" if ours["allocated_gib"] is not None else ""
    idle = f"{ours['gpu_idle']:7.1%}" if ours["gpu_idle"] is not None else ""
    return f"{ours['images_per_second']:7.2f}{compared}{ours['mfu']:7.1%}{memory}{idle}"


if __name__ == "__main__":
    main()

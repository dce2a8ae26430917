"""Train a full-size Phi-3.5-vision with random weights on document pages, kill the run, and resume it.

Run: python -m benchmarks.train_gpu FOLDER [--json FILE] [METHOD...] [-- OPTION OF TRAIN...]

Each method is started twice. The first run writes a checkpoint half way, and gets SIGKILL two steps before its end. The
second resumes from the checkpoint. The steps in between are thus computed twice, and their losses are compared. Whole
models are also killed after their last step, since the disk has no room for a second checkpoint.

FILE is written after each run, and keeps its results for other methods. FOLDER gets the model (8 GB) and the pages,
which are reused if they exist. Runs are written to --runs, by default inside FOLDER. They need 60 GB of disk and as
much memory for full and frozen, and 4 GB for adapters. To try it on a CPU: --model_size tiny --num_crops 1.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.logs import logged_steps
from convkit.profiles import TargetModel
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import jpeg, words
from convkit.train.bench.workloads import PAGE
from convkit.train.distributed.environment import versions
from convkit.train.models.save import save_model
from convkit.validate.run import validate
from tests.fixtures.builders import lines, manifest

BATCH = 8
WARMUP_STEPS = 2
"""Steps before throughput is measured."""
PAGES = 16
"""Distinct pages; rows use them in turn."""
WHOLE_MODEL = ["--bf16", "--optim", "adamw_bf16", "--max_tokens", "5200", "--no_check_checkpoint"]
METHODS = {
    "lora": ["--bf16", "--use_lora", "--max_tokens", "10400"],
    "qlora": ["--bf16", "--use_qlora", "--max_tokens", "10400"],
    "lora_fp16": ["--fp16", "--use_lora", "--max_tokens", "10400"],
    "frozen": [*WHOLE_MODEL, "--freeze_vision_model"],
    "full": WHOLE_MODEL,
}
DISK_BYTES = {"full": 60e9, "frozen": 56e9}
"""Size of a full-size checkpoint: 12 bytes per trained weight, and the exported model."""
COMMON = f"--batch_size {BATCH} --warmup_steps 2 --dataloader_num_workers 8 --save_total_limit 1 --no_tqdm".split()


class RunFailed(Exception):
    """A run ended unexpectedly; the message contains its output."""


@dataclass(frozen=True)
class FinishedRun:
    """The output and the log of a run."""

    output: list[str]
    log: list[dict[str, Any]]
    seconds: float
    logged_at: list[float]
    """Seconds from the start until each line of the log was written."""


def main() -> None:
    """Measure each method in turn. If one fails, print the reason and continue with the others."""
    given = _arguments()
    model, data = prepare(given.folder, BATCH * given.steps, given.num_crops, given.model_size)
    found = json.loads(given.json.read_bytes()) if given.json.exists() else {}
    about = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "model_size": given.model_size,
        "steps": given.steps,
        "batch": BATCH,
    }
    for method in given.methods or METHODS:
        options = [*COMMON, "--num_crops", str(given.num_crops), *METHODS[method], *given.options]
        found[method] = {**about, "options": options}
        runs = (given.runs or given.folder / "runs") / method
        paths = ["--data_dir", str(data), "--model", str(model), "--output_dir", str(runs)]
        try:
            _require_disk(runs, DISK_BYTES.get(method, 4e9) if given.model_size == "full" else 0)
            for part in _measure([*paths, *options], runs, given.steps, method in ("full", "frozen")):
                found[method] |= part
                _write(given.json, found)
        except RunFailed as error:
            found[method]["failed"] = str(error).replace(str(runs), "RUN").replace(str(given.folder), "FOLDER")
            _write(given.json, found)
            print(f"{method}: {error}", file=sys.stderr)
        finally:
            shutil.rmtree(runs, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    line = sys.argv[1:]
    end = line.index("--") if "--" in line else len(line)
    own, options = line[:end], line[end + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all if none is given")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/train_gpu.json"))
    parser.add_argument("--runs", type=Path, help="directory for the runs, such as one on another disk")
    parser.add_argument("--model_size", choices=["full", "tiny"], default="full")
    parser.add_argument("--num_crops", type=int, default=16)
    given = parser.parse_intermixed_args(own, argparse.Namespace(options=options))
    if unknown := set(given.methods) - set(METHODS):
        parser.error(f"no method {', '.join(sorted(unknown))}; choose from {', '.join(METHODS)}")
    if given.steps < 6:
        parser.error("--steps must be at least 6, for a checkpoint half way and steps on both sides")
    if not given.json.absolute().parent.is_dir():
        parser.error(f"--json: the directory {given.json.parent} does not exist")
    return given


def _write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n")


def prepare(folder: Path, rows: int, num_crops: int, model_size: Any) -> tuple[Path, Path]:
    """Return the model and a dataset of pages, created if they do not exist."""
    model, data = folder / "model", folder / f"rows-{rows}-{num_crops}"
    if not model.exists():
        _create_checkpoint(model, model_size, num_crops, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if not (data / "receipt.json").exists():
        shutil.rmtree(data, ignore_errors=True)
        _create_dataset(data, rows, num_crops)
    return model, data


def _create_checkpoint(directory: Path, model_size: Any, num_crops: int, device: torch.device) -> None:
    with TemporaryDirectory() as scratch:
        family = RandomPhi3V(Path(scratch), model_size, num_crops, device, seed=0)
        save_model(directory, family.load(torch.bfloat16), family, torch.bfloat16)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _create_dataset(directory: Path, count: int, num_crops: int) -> None:
    """Write one question per page, which contains its own answer."""
    random = Random(0)
    (directory / "images").mkdir(parents=True)
    for number in range(PAGES):
        (directory / f"images/{number}.jpg").write_bytes(jpeg("page", PAGE, random))
    rows = []
    for number in range(count):
        question = words(random, 6)
        answer = " ".join(question.split()[:3])
        turn = {"images": [f"{number % PAGES}.jpg"], "user": f"{question}?", "assistant": answer}
        rows.append({"id": f"r{number}", "source": "pages", "conversations": [turn]})
    files = {"pages_train.jsonl": lines(*rows)}
    (directory / "pages_train.jsonl").write_bytes(files["pages_train.jsonl"])
    (directory / "dataset.json").write_bytes(manifest(files, train="pages_train.jsonl"))
    result = validate([directory], target=TargetModel.from_options(f"phi-3.5-vision:num_crops={num_crops}"))
    if not result.receipts:
        sys.exit(result.report.model_dump_json())


def _require_disk(run: Path, needed: float) -> None:
    """Raise RunFailed if the disk has no room for the checkpoints, before minutes of training."""
    run.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run).free
    if free < needed:
        raise RunFailed(f"{run} needs {needed / 1e9:.0f} GB, but {free / 1e9:.0f} GB are free; see --runs")


def _measure(arguments: list[str], run: Path, steps: int, whole_model: bool) -> Iterator[dict[str, Any]]:
    """Yield the results of the run until it is killed, then of the resumed run."""
    shutil.rmtree(run, ignore_errors=True)
    half = steps // 2
    command = [sys.executable, "-m", "convkit", "train", *arguments, "--save_steps", str(half), "--resume", "auto"]
    one = run_to(command, run, kill_at=steps - 2)
    steady = one.log[WARMUP_STEPS:]
    seconds = sum(step["seconds"] for step in steady)
    size = sum(path.stat().st_size for path in (run / "checkpoints").glob("step-*/**/*") if path.is_file())
    yield {
        "images_per_second": round(sum(step["images"] for step in steady) / seconds, 3),
        "tokens_per_second": round(sum(step["tokens"] for step in steady) / seconds, 1),
        "memory_gib": max((step["memory_gib"] for step in one.log if "memory_gib" in step), default=None),
        "mfu": steady[-1].get("mfu"),
        "skipped_steps": sum(step.get("skipped", False) for step in one.log),
        "before_first_step_s": round(one.logged_at[0] - one.log[0]["seconds"], 1),
        "checkpoint_gb": round(size / 1e9, 2),
        "checkpoint_s": round(one.logged_at[half] - one.logged_at[half - 1] - one.log[half]["seconds"], 1),
        "losses": [step["loss"] for step in one.log],
        "output": one.output,
    }
    two = run_to(command, run, kill_at=steps if whole_model else 0)
    again = two.log[half:]
    yield {
        "losses_resumed": [step["loss"] for step in again],
        "largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in zip(one.log[half:], again, strict=False)),
        "resumed_run_s": round(two.seconds, 1),
        "output_resumed": [line.replace(str(run), "RUN") for line in two.output],
    }


def run_to(command: list[str], folder: Path, kill_at: int) -> FinishedRun:
    """Run a command to its end, or kill it once its log has `kill_at` steps. Raises RunFailed."""
    began = time.monotonic()
    logged_at: list[float] = []
    with TemporaryDirectory() as scratch, open(f"{scratch}/output", "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            done = len(logged_steps(folder))
            logged_at += [time.monotonic() - began] * (done - len(logged_at))
            if kill_at and done >= kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.02)
        text = Path(output.name).read_text()
    if process.returncode != (-signal.SIGKILL if kill_at else 0):
        raise RunFailed(f"exit code {process.returncode}{' before it could be killed' * bool(kill_at)}: {text[-4000:]}")
    return FinishedRun(text.splitlines(), logged_steps(folder), time.monotonic() - began, logged_at)


if __name__ == "__main__":
    main()

"""Phi-3.5-vision in full size with random weights, trained on pages of documents, killed, and gone on with.

Run: python -m benchmarks.train_gpu FOLDER [--json FILE] [METHOD...] [-- OPTION OF TRAIN...]

A method is started twice. The first run writes a checkpoint half way and gets SIGKILL two steps before its end; the
second goes on from the checkpoint. Steps between the two were thus taken twice, undisturbed and resumed, and are
compared. Whole models are killed after their last step as well, since a second checkpoint would find no room.

FILE is written after each run, and keeps what it holds of other methods. FOLDER gets the model (8 GB) and the pages,
which are taken again where they are; runs are in --runs, by default inside it, and need 60 GB for full and frozen, 4 GB
for adapters, and as much memory. With --geometry tiny --num_crops 1 it is rehearsed on a CPU.
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

from benchmarks.logs import steps
from convkit.profiles import TargetModel
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import jpeg, words
from convkit.train.bench.workloads import PAGE
from convkit.train.distributed.environment import versions
from convkit.train.models.save import save_model
from convkit.validate.run import validate
from tests.fixtures.builders import lines, manifest

BATCH = 8
WARM = 2
"""Steps before the speed is taken."""
PAGES = 16
"""Different ones; rows take them in turn."""
WHOLE = ["--bf16", "--optim", "adamw_bf16", "--max_tokens", "5200", "--no_check_checkpoint"]
METHODS = {
    "lora": ["--bf16", "--use_lora", "--max_tokens", "10400"],
    "qlora": ["--bf16", "--use_qlora", "--max_tokens", "10400"],
    "lora_fp16": ["--fp16", "--use_lora", "--max_tokens", "10400"],
    "frozen": [*WHOLE, "--freeze_vision_model"],
    "full": WHOLE,
}
ROOM = {"full": 60e9, "frozen": 56e9}
"""Bytes of a checkpoint in full size, where they are many: 12 for each trained weight, and the model for use."""
COMMON = f"--batch_size {BATCH} --warmup_steps 2 --dataloader_num_workers 8 --save_total_limit 1 --no_tqdm".split()


class Failed(Exception):
    """A run ended otherwise than it should; what it said."""


@dataclass(frozen=True)
class Ended:
    """What was seen of a run."""

    said: list[str]
    log: list[dict[str, Any]]
    seconds: float
    seen: list[float]
    """Seconds after which each line of the log was there."""


def main() -> None:
    """Measure methods in turn; one that fails says why, and the others go on."""
    told = _arguments()
    model, data = prepare(told.folder, BATCH * told.steps, told.num_crops, told.geometry)
    found = json.loads(told.json.read_bytes()) if told.json.exists() else {}
    about = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "geometry": told.geometry,
        "steps": told.steps,
        "batch": BATCH,
    }
    for method in told.methods or METHODS:
        options = [*COMMON, "--num_crops", str(told.num_crops), *METHODS[method], *told.options]
        found[method] = {**about, "options": options}
        runs = (told.runs or told.folder / "runs") / method
        places = ["--data_dir", str(data), "--model", str(model), "--output_dir", str(runs)]
        try:
            _require_room(runs, ROOM.get(method, 4e9) if told.geometry == "full" else 0)
            for part in _measured([*places, *options], runs, told.steps, method in ("full", "frozen")):
                found[method] |= part
                _write(told.json, found)
        except Failed as error:
            found[method]["failed"] = str(error).replace(str(runs), "RUN").replace(str(told.folder), "FOLDER")
            _write(told.json, found)
            print(f"{method}: {error}", file=sys.stderr)
        finally:
            shutil.rmtree(runs, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    given = sys.argv[1:]
    own, options = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all if none is given")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/train_gpu.json"))
    parser.add_argument("--runs", type=Path, help="another folder for the runs, such as one on another disk")
    parser.add_argument("--geometry", choices=["full", "tiny"], default="full")
    parser.add_argument("--num_crops", type=int, default=16)
    told = parser.parse_intermixed_args(own, argparse.Namespace(options=options))
    if unknown := set(told.methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if told.steps < 6:
        parser.error("--steps: at least 6, for a checkpoint half way and steps on both sides")
    if not told.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {told.json.parent}")
    return told


def _write(file: Path, found: dict[str, Any]) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n")


def prepare(folder: Path, rows: int, num_crops: int, geometry: Any) -> tuple[Path, Path]:
    """The model and so many rows of pages, made where they are not there."""
    model, data = folder / "model", folder / f"rows-{rows}-{num_crops}"
    if not model.exists():
        _make_checkpoint(model, geometry, num_crops, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if not (data / "receipt.json").exists():
        shutil.rmtree(data, ignore_errors=True)
        _make_dataset(data, rows, num_crops)
    return model, data


def _make_checkpoint(directory: Path, geometry: Any, num_crops: int, device: torch.device) -> None:
    with TemporaryDirectory() as scratch:
        family = RandomPhi3V(Path(scratch), geometry, num_crops, device, seed=0)
        save_model(directory, family.load(torch.bfloat16), family, torch.bfloat16)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _make_dataset(directory: Path, count: int, num_crops: int) -> None:
    """One question about each page, whose answer stands in it."""
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


def _require_room(run: Path, wanted: float) -> None:
    """Before minutes of training that could not be saved; raises Failed."""
    run.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run).free
    if free < wanted:
        raise Failed(f"{wanted / 1e9:.0f} GB are needed in {run}, where {free / 1e9:.0f} are free; see --runs")


def _measured(arguments: list[str], run: Path, many: int, whole_model: bool) -> Iterator[dict[str, Any]]:
    """Figures of the run until it was killed; then of what was gone on with."""
    shutil.rmtree(run, ignore_errors=True)
    half = many // 2
    command = [sys.executable, "-m", "convkit", "train", *arguments, "--save_steps", str(half), "--resume", "auto"]
    one = run_to(command, run, kill_at=many - 2)
    steady = one.log[WARM:]
    seconds = sum(step["seconds"] for step in steady)
    size = sum(path.stat().st_size for path in (run / "checkpoints").glob("step-*/**/*") if path.is_file())
    yield {
        "images_a_second": round(sum(step["images"] for step in steady) / seconds, 3),
        "tokens_a_second": round(sum(step["tokens"] for step in steady) / seconds, 1),
        "memory_gib": max((step["memory_gib"] for step in one.log if "memory_gib" in step), default=None),
        "mfu": steady[-1].get("mfu"),
        "skipped_steps": sum(step.get("skipped", False) for step in one.log),
        "before_first_step_s": round(one.seen[0] - one.log[0]["seconds"], 1),
        "checkpoint_gb": round(size / 1e9, 2),
        "checkpoint_s": round(one.seen[half] - one.seen[half - 1] - one.log[half]["seconds"], 1),
        "losses": [step["loss"] for step in one.log],
        "said": one.said,
    }
    two = run_to(command, run, kill_at=many if whole_model else 0)
    again = two.log[half:]
    yield {
        "losses_resumed": [step["loss"] for step in again],
        "largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in zip(one.log[half:], again, strict=False)),
        "resumed_run_s": round(two.seconds, 1),
        "said_resumed": [line.replace(str(run), "RUN") for line in two.said],
    }


def run_to(command: list[str], folder: Path, kill_at: int) -> Ended:
    """Run it to its end, or with `kill_at` until so many steps are in its log; raises Failed."""
    began = time.monotonic()
    seen: list[float] = []
    with TemporaryDirectory() as scratch, open(f"{scratch}/said", "w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            done = len(steps(folder))
            seen += [time.monotonic() - began] * (done - len(seen))
            if kill_at and done >= kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.02)
        text = Path(said.name).read_text()
    if process.returncode != (-signal.SIGKILL if kill_at else 0):
        raise Failed(f"exit code {process.returncode}{' before it could be killed' * bool(kill_at)}: {text[-4000:]}")
    return Ended(text.splitlines(), steps(folder), time.monotonic() - began, seen)


if __name__ == "__main__":
    main()

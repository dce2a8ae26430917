"""Does training teach anything? A small vision-language model on easy-VQA, by the commands that a user types.

Run: python -m benchmarks.learns FOLDER [--json FILE] [--start CHECKPOINT] [OPTION OF TRAIN...]

Without --start, a small SmolVLM from scratch. The data set's own test split is asked in the end, one question at a
time; on the way, the first 1,000 questions of the validation split. `blind` is what can be had without looking: for
each question its most frequent answer in the training split. `majority` is one answer to everything. FILE is written
while it trains, so that nothing is lost with a machine. --pictures N takes N of each split alone, for a rehearsal.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.logs import steps
from convkit.dataset import Dataset
from convkit.metrics.classes import confusions
from convkit.metrics.results import Scores, SourceScores
from convkit.train.models import model_family, tiny
from convkit.train.models.tiny.idefics3 import ModelSize

GEOMETRY = ModelSize(
    hidden_size=192,
    layers=3,
    heads=6,
    vision_hidden_size=192,
    vision_layers=4,
    patch_size=8,
    scale_factor=2,
    initializer_range=0.05,
)
"""Weights of 0.02, as is usual, suit wider models: with them what the tower sees hardly reaches the answer at first,
and shapes are learnt late."""
_A_WHILE_S = 10
TRAINING = {
    "num_train_epochs": 16,
    "batch_size": 128,
    "learning_rate": 7e-4,
    "warmup_steps": 200,
    "max_tokens": 32768,
    "dataloader_num_workers": 12,
    "gradient_checkpointing": "none",
    "save_steps": 1000,
    "resume": "auto",
    "eval_split": "val",
    "eval_limit": 1000,
    "eval_steps": 544,
    "eval_batch_size": 500,
    "eval_max_new_tokens": 8,
}


def options(extra: Sequence[str]) -> list[str]:
    """Of `convkit train`; those given win."""
    usual = [part for name, value in TRAINING.items() for part in (f"--{name}", str(value))]
    return [*usual, *(["--bf16"] if torch.cuda.is_available() else []), *extra]


def command(*arguments: object, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Run convkit; returns seconds. Does something else from time to time."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "convkit", *map(str, arguments)], stdout=sys.stderr)
    while process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_A_WHILE_S)
        meanwhile()
    if process.returncode:
        sys.exit(f"convkit {arguments[0]}: exit code {process.returncode}")
    return time.perf_counter() - begun


def pairs(data: Dataset, split: str) -> list[tuple[str, str]]:
    """Questions and answers."""
    return [(turn.user, turn.assistant or "") for _, row in data.rows(split) for turn in row.conversations]


def without_looking(data: Dataset) -> dict[str, float]:
    """Accuracy on the test split of answers that do not depend on pictures."""
    learnt, asked = pairs(data, "train"), pairs(data, "test")
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for question, answer in learnt:
        by_question[question][answer] += 1
    most = Counter(answer for _, answer in learnt).most_common(1)[0][0]
    blind = [by_question[q].most_common(1)[0][0] == a if q in by_question else most == a for q, a in asked]
    return {
        "majority": sum(answer == most for _, answer in asked) / len(asked),
        "blind": sum(blind) / len(asked),
    }


def accuracy(folder: Path) -> tuple[SourceScores, dict[str, float | None]]:
    """The scores of an evaluation, and its accuracy with the ends of the interval."""
    (found,) = Scores.model_validate_json((folder / "scores.json").read_bytes()).sources
    measure = next(metric for metric in found.metrics if metric.name == "accuracy")
    return found, {"value": measure.value, "low": measure.low, "high": measure.high}


def tested(folder: Path, data: Path, start: Path, final: Path, workers: int) -> dict[str, Any]:
    """What came of a run, on the test split."""
    adapter = final / "adapter"
    seconds = command(
        *("evaluate", "--data_dir", data, "--split", "test", "--output_dir", folder),
        *(("--model", start, "--adapter", adapter) if adapter.exists() else ("--model", final / "model")),
        *("--batch_size", 512, "--max_new_tokens", 8, "--dataloader_num_workers", workers),
        *(["--bf16"] if torch.cuda.is_available() else []),
    )
    found, value = accuracy(folder)
    classes = found.classes or []
    return {
        "turns": found.turns,
        "seconds": seconds,
        **value,
        "right by answer": {c.name: f"{c.correct} of {c.support}" for c in classes},
        "most frequent mistakes": [f"{turns} {gold} as {other}" for turns, gold, other in confusions(classes)[:8]],
    }


def trained(run: Path) -> dict[str, Any]:
    """What is known of a run, be it in the middle."""
    log = steps(run)
    if not log:
        return {}
    config = json.loads((run / "config.json").read_bytes())
    scored = sorted((run / "evaluations").glob("step-*/scores.json"))
    return {
        "config": {name: value for name, value in config.items() if name not in ("data_dir", "model", "output_dir")},
        "steps done": len(log),
        "seconds in steps": round(sum(step["seconds"] for step in log), 1),
        "validation": {file.parent.name: accuracy(file.parent)[1] for file in scored},
        "log": log[:: max(1, len(log) // 40)],
    }


def main() -> None:
    """Do it, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/learns.json"))
    parser.add_argument("--start", type=Path)
    parser.add_argument("--pictures", type=int)
    told, extra = parser.parse_known_args()
    if not told.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {told.json.parent}")
    told.folder.mkdir(parents=True, exist_ok=True)
    data, run = told.folder / "easy-vqa", told.folder / "run"
    few = ["--limit", told.pictures] if told.pictures else []
    command("convert", "easy-vqa", "--out_dir", data, "--one_question_per_row", *few)
    opened = Dataset.open(data)
    start = told.start or told.folder / "start"
    if not told.start:
        tiny.smolvlm(start, sorted({text for pair in pairs(opened, "train") for text in pair}), GEOMETRY)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "geometry": None if told.start else asdict(GEOMETRY),
        "without looking": without_looking(opened),
    }

    def keep() -> None:
        result.update(trained(run))
        told.json.write_text(json.dumps(result, indent=1) + "\n")

    command("validate", data, "--model", model_family(start).profile)
    where = ("--data_dir", data, "--model", start, "--output_dir", run)
    result["training seconds"] = command("train", *where, *options(extra), meanwhile=keep)
    keep()
    workers = result["config"]["dataloader_num_workers"]
    result["test"] = tested(told.folder / "test", data, start, run / "final", workers)
    keep()


if __name__ == "__main__":
    main()

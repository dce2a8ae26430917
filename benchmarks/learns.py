"""Train a small vision-language model on easy-VQA with the commands that a user types, and measure its accuracy.

Run: python -m benchmarks.learns FOLDER [--json FILE] [--start CHECKPOINT] [OPTION OF TRAIN...]

Without --start the model is a small SmolVLM from scratch. During training the first 1,000 questions of the validation
split are evaluated; at the end the whole test split, one question per row. Two baselines do not look at the images:
`blind` gives each question's most frequent answer in the training split, `majority` gives one answer to every question.
FILE is written during training, so that an interrupted run keeps its results. --pictures N uses N pictures per split,
for a trial.
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

from benchmarks.logs import logged_steps
from convkit.dataset import Dataset
from convkit.metrics.classes import confusions
from convkit.metrics.results import Scores, SourceScores
from convkit.train.models import model_family, tiny
from convkit.train.models.tiny.idefics3 import Idefics3Size

MODEL_SIZE = Idefics3Size(
    hidden_size=192,
    layers=3,
    heads=6,
    vision_hidden_size=192,
    vision_layers=4,
    patch_size=8,
    scale_factor=2,
    initializer_range=0.05,
)
"""The usual initializer range of 0.02 suits wider models. In this one, image features would hardly influence the answer
at first, and the model would learn shapes late."""
_POLL_SECONDS = 10
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
    """Return the options of `convkit train`; the extra ones override the defaults."""
    defaults = [part for name, value in TRAINING.items() for part in (f"--{name}", str(value))]
    return [*defaults, *(["--bf16"] if torch.cuda.is_available() else []), *extra]


def command(*arguments: object, meanwhile: Callable[[], object] = lambda: None) -> float:
    """Run convkit and return the seconds, calling `meanwhile` at regular intervals."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "convkit", *map(str, arguments)], stdout=sys.stderr)
    while process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
        meanwhile()
    if process.returncode:
        sys.exit(f"convkit {arguments[0]}: exit code {process.returncode}")
    return time.perf_counter() - began


def pairs(data: Dataset, split: str) -> list[tuple[str, str]]:
    """Return the questions and answers of a split."""
    return [(turn.user, turn.assistant or "") for _, row in data.rows(split) for turn in row.conversations]


def text_only_baselines(data: Dataset) -> dict[str, float]:
    """Return the accuracy on the test split of answers that do not depend on the images."""
    trained, tested = pairs(data, "train"), pairs(data, "test")
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    for question, answer in trained:
        by_question[question][answer] += 1
    most = Counter(answer for _, answer in trained).most_common(1)[0][0]
    blind = [by_question[q].most_common(1)[0][0] == a if q in by_question else most == a for q, a in tested]
    return {
        "majority": sum(answer == most for _, answer in tested) / len(tested),
        "blind": sum(blind) / len(tested),
    }


def accuracy(folder: Path) -> tuple[SourceScores, dict[str, float | None]]:
    """Return the scores of an evaluation, and its accuracy with the confidence interval."""
    (found,) = Scores.model_validate_json((folder / "scores.json").read_bytes()).sources
    measure = next(metric for metric in found.metrics if metric.name == "accuracy")
    return found, {"value": measure.value, "low": measure.low, "high": measure.high}


def evaluate_test_split(folder: Path, data: Path, start: Path, final: Path, workers: int) -> dict[str, Any]:
    """Evaluate the final model on the test split."""
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
        "correct by answer": {c.name: f"{c.correct} of {c.support}" for c in classes},
        "most frequent errors": [f"{turns} {gold} as {other}" for turns, gold, other in confusions(classes)[:8]],
    }


def training_progress(run: Path) -> dict[str, Any]:
    """Return the configuration, log and validation scores of a run, which may still be running."""
    log = logged_steps(run)
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
    """Convert, validate, train and evaluate, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/learns.json"))
    parser.add_argument("--start", type=Path)
    parser.add_argument("--pictures", type=int)
    given, extra = parser.parse_known_args()
    if not given.json.absolute().parent.is_dir():
        parser.error(f"--json: the directory {given.json.parent} does not exist")
    given.folder.mkdir(parents=True, exist_ok=True)
    data, run = given.folder / "easy-vqa", given.folder / "run"
    limit = ["--limit", given.pictures] if given.pictures else []
    command("convert", "easy-vqa", "--out_dir", data, "--one_question_per_row", *limit)
    opened = Dataset.open(data)
    start = given.start or given.folder / "start"
    if not given.start:
        tiny.smolvlm(start, sorted({text for pair in pairs(opened, "train") for text in pair}), MODEL_SIZE)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "model size": None if given.start else asdict(MODEL_SIZE),
        "text-only baselines": text_only_baselines(opened),
    }

    def keep() -> None:
        result.update(training_progress(run))
        given.json.write_text(json.dumps(result, indent=1) + "\n")

    command("validate", data, "--model", model_family(start).profile)
    paths = ("--data_dir", data, "--model", start, "--output_dir", run)
    result["training seconds"] = command("train", *paths, *options(extra), meanwhile=keep)
    keep()
    workers = result["config"]["dataloader_num_workers"]
    result["test"] = evaluate_test_split(given.folder / "test", data, start, run / "final", workers)
    keep()


if __name__ == "__main__":
    main()

"""Does training teach anything? A small SmolVLM, from scratch, on easy-VQA, by the commands that a user types.

Run: python -m benchmarks.learns FOLDER [EPOCHS [OPTION OF TRAIN...]] > benchmarks/results/learns.json

Its own test split is asked, one question at a time, before (its first 1,000
questions) and after. `blind` is what can be had without looking: for
each question its most frequent answer in the training split. `majority` is one answer to everything.
"""

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from convkit.dataset import Dataset
from convkit.train.models import adapter as adapter_of
from convkit.train.models import tiny
from convkit.train.models.tiny.idefics3 import Geometry

GEOMETRY = Geometry(
    hidden_size=256, layers=4, heads=8, vision_hidden_size=256, vision_layers=4, patch_size=8, scale_factor=2
)
TRAINING = {
    "batch_size": 256,
    "learning_rate": 1e-3,
    "warmup_steps": 200,
    "max_tokens": 32768,
    "save_steps": 500,
    "dataloader_num_workers": 12,
}


def command(*arguments: object, check: bool = True) -> float:
    """Run convkit; returns seconds."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "convkit", *map(str, arguments)], stdout=sys.stderr)
    if done.returncode and check:
        sys.exit(f"{arguments[0]}: exit code {done.returncode}")
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


def score(folder: Path, data: Path, model: Path, bf16: bool, *limit: object) -> dict[str, Any]:
    """Accuracy of a checkpoint on the test split."""
    seconds = command(
        *("evaluate", "--data_dir", data, "--split", "test", "--model", model, "--output_dir", folder),
        *("--batch_size", 512, "--max_new_tokens", 8, "--dataloader_num_workers", TRAINING["dataloader_num_workers"]),
        *(["--bf16"] if bf16 else []),
        *limit,
    )
    found = json.loads((folder / "scores.json").read_text())["sources"][0]
    accuracy = next(metric for metric in found["metrics"] if metric["name"] == "accuracy")
    return {"turns": found["turns"], "seconds": seconds, **{k: accuracy[k] for k in ("value", "low", "high")}}


def main() -> None:
    """Do it, and print JSON."""
    work, epochs, extra = Path(sys.argv[1]), int((sys.argv[2:3] or ["10"])[0]), sys.argv[3:]
    work.mkdir(parents=True, exist_ok=True)
    data, start, run = work / "easy-vqa", work / "start", work / "run"
    gpu = torch.cuda.is_available()
    command("convert", "easy-vqa", "--out_dir", data, "--one_question_per_row")
    opened = Dataset.open(data)
    tiny.smolvlm(start, {text for pair in pairs(opened, "train") for text in pair}, GEOMETRY)
    command("validate", data, "--model", adapter_of(start).profile)
    before = score(work / "before", data, start, gpu, "--limit", 1000)
    options = [part for name, value in TRAINING.items() for part in (f"--{name}", value)]
    seconds = command(
        *("train", "--data_dir", data, "--model", start, "--output_dir", run, "--num_train_epochs", epochs),
        *(*options, "--checkpointing", "none", *(["--bf16"] if gpu else []), *extra),
    )
    after = score(work / "after", data, run / "final" / "model", gpu)
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    every = max(1, len(log) // 40)
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name() if gpu else "CPU",
                "torch": torch.__version__,
                "epochs": epochs,
                "options": [*map(str, options), *extra],
                "without looking": without_looking(opened),
                "before": before,
                "training seconds": seconds,
                "after": after,
                "log": log[::every],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

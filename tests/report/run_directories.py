"""Run directories as written by convkit train and convkit evaluate, made without a model."""

import json
from pathlib import Path
from typing import Any

from convkit import receipt, run_info
from convkit.dataset import Dataset
from convkit.metrics.options import ScoreOptions
from convkit.metrics.predictions import Prediction, read_predictions
from convkit.metrics.score import score
from convkit.run_info import Hardware, RunInfo, ScheduleSummary
from convkit.schema import Row
from convkit.validate.run import validate
from tests.fixtures.builders import lines, manifest, png

HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}"
STEPS = 30
OPTIONS = ScoreOptions(("accuracy", "majority", "classes"), resamples=20)


def rows(hostile: str = "") -> list[dict[str, Any]]:
    """Return six rows with questions about images; the hostile text is in every text and in a file name."""
    found = []
    for number in range(6):
        answer = ("cat", "dog", f"cow{hostile}")[number % 3]
        turn = {"images": [f"{number}{hostile.replace('/', '')}.png"], "user": f"Which? {hostile}", "assistant": answer}
        found.append({"id": f"r{number}{hostile}", "source": f"pets{hostile}", "conversations": [turn]})
    return found


def dataset(directory: Path, content: list[dict[str, Any]]) -> Path:
    (directory / "images").mkdir(parents=True)
    for number, row in enumerate(content):
        for name in row["conversations"][0]["images"]:
            (directory / "images" / name).write_bytes(png(240, 180, 40 * number))
    files = {"pets_val.jsonl": lines(*content)}
    (directory / "pets_val.jsonl").write_bytes(files["pets_val.jsonl"])
    (directory / "dataset.json").write_bytes(manifest(files, val="pets_val.jsonl"))
    assert validate([directory], workers=0).receipts
    return directory


def write_record(folder: Path, data: Path, *, planned: bool, steps: int = STEPS) -> None:
    schedule = ScheduleSummary(
        method="full", rows=6, dropped=1, epochs=5, steps=steps, micro_batches=40, tokens=9_000, digest="0" * 64
    )
    run_info.write(
        folder,
        RunInfo(
            versions={"convkit": "0.1.0", "torch": "2.11.0"},
            hardware=Hardware(device="cpu", processes=1, platform="Linux", cpus=2),
            data_dir=data,
            split="train" if planned else "val",
            manifest=Dataset.open(data).manifest,
            receipt=receipt.read(data),
            schedule=schedule if planned else None,
        ),
    )


def evaluated(folder: Path, content: list[dict[str, Any]], right: int, wrong: str = "bird") -> None:
    """Write predictions whose first ones are right, with their scores."""
    texts = [row["conversations"][0]["assistant"] if n < right else wrong for n, row in enumerate(content)]
    predicted(folder, content, texts)


def predicted(folder: Path, content: list[dict[str, Any]], texts: list[str], options: ScoreOptions = OPTIONS) -> None:
    """Write predictions and their scores."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = map(Row.model_validate, content)
    found = [Prediction.from_row(row, 0, text).to_line() + b"\n" for row, text in zip(asked, texts, strict=True)]
    (folder / "predictions.jsonl").write_bytes(b"".join(found))
    scores = score(read_predictions(folder / "predictions.jsonl"), options)
    (folder / "scores.json").write_text(scores.model_dump_json())


def evaluation(folder: Path, data: Path, content: list[dict[str, Any]], right: int) -> Path:
    evaluated(folder, content, right)
    (folder / "evaluation.json").write_text(json.dumps({"rows": "0", "--split": "val"}))
    write_record(folder, data, planned=False)
    return folder


def step(number: int) -> dict[str, Any]:
    return {
        "step": number,
        "epoch": number / 6,
        "loss": 3 / number,
        "learning_rate": 1e-3 * (1 - number / STEPS),
        "grad_norm": 1.5 if number % 7 else None,
        "rows": 1,
        "tokens": 300,
        "supervised_tokens": 50,
        "seconds": 0.5,
        "images": 1,
        "images_per_second": 2.0,
        "tokens_per_second": 600.0,
        "memory_gib": 1.25,
    }


def training(folder: Path, data: Path, content: list[dict[str, Any]], *, steps: int = STEPS, hostile: str = "") -> Path:
    """Write a training run that is finished if it has all of its steps."""
    folder.mkdir(parents=True)
    options = {
        "data_dir": str(data),
        "model": f"models/{hostile}",
        "eval_split": "val",
        "weight_decay": 0.01,
        "eval_steps": None,
    }
    (folder / "config.json").write_text(json.dumps(options))
    (folder / "metrics.jsonl").write_bytes(lines(*(step(n) for n in range(1, steps + 1))))
    (folder / "dropped.jsonl").write_bytes(lines({"line": 3, "id": "long", "tokens": 10_000}))
    write_record(folder, data, planned=True)
    for number, right in ((0, 1), (10, 3), (STEPS, 5)):
        if number <= steps:
            evaluated(folder / f"evaluations/step-{number:08}", content, right, f"bird{hostile}")
    if steps == STEPS:
        (folder / "final").mkdir()
    return folder

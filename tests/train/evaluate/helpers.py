"""Rows, datasets and runs for the tests of evaluation."""

from pathlib import Path
from typing import Any

import PIL.Image

from convkit.train.evaluate import run
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models import model_family
from tests.train.helpers import runs

ROWS = 5
TURNS = 8


def rows(labelled: bool = True) -> list[dict[str, Any]]:
    """Return yes/no rows with one image each. Every other row has a second turn, without an image of its own."""
    found = []
    for number in range(ROWS):
        turns: list[dict[str, Any]] = [
            {"images": [f"{number}.png"], "user": "Is it true?", "assistant": ["Yes", "No"][number % 2]}
        ]
        if number % 2 == 0:
            turns.append({"images": [], "user": f"What of {number}?", "assistant": ["No", "Yes"][number // 2 % 2]})
        if not labelled:
            turns = [{key: value for key, value in turns[0].items() if key != "assistant"}]
        found.append({"id": f"r{number}", "source": "pets", "conversations": turns})
    return found


def write_dataset(directory: Path, content: list[dict[str, Any]]) -> Path:
    """Write rows with noise images, without a receipt."""
    runs.write_dataset(directory, content, validated=False)
    for path in (directory / "images").iterdir():
        PIL.Image.effect_noise((40, 30), sum(path.name.encode())).save(path)
    return directory


def validated_dataset(directory: Path, model: Path, content: list[dict[str, Any]]) -> Path:
    """Write rows with noise images and a receipt for the model."""
    write_dataset(directory, content)
    runs.receipt(directory, model_family(model).profile)
    return directory


def predictions(options: EvaluateOptions) -> bytes:
    """Run an evaluation and return its predictions file."""
    return run.evaluate(options, runs.ONE).read_bytes()


def arguments(options: EvaluateOptions, output: Path) -> list[str]:
    """Return the command line of an evaluation that writes to `output`."""
    return [
        *("--data_dir", str(options.data_dir), "--split", options.split, "--model", str(options.model)),
        *("--output_dir", str(output), "--batch_size", "2", "--max_new_tokens", "6", "--dataloader_num_workers", "0"),
    ]

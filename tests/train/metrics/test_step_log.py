"""The lines that training logs without a progress bar."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convkit.train import run
from convkit.train.metrics.step_log import StepLog
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.utils.progress import Note, Progress
from tests.train.helpers import runs


def record(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "loss": float(step), "learning_rate": step * 1e-5, "images": 4, "seconds": 0.5, **values}


def test_a_line_is_logged_every_few_steps_and_after_the_last() -> None:
    lines: list[str] = []
    log = StepLog(2, 5, lines.append)
    for step in range(1, 6):
        log(record(step))
    assert lines == [
        "step 2 of 5: loss 1.5000, learning rate 2.00e-05, 8.00 images/s",
        "step 4 of 5: loss 3.5000, learning rate 4.00e-05, 8.00 images/s",
        "step 5 of 5: loss 5.0000, learning rate 5.00e-05, 8.00 images/s",
    ]


def test_throughput_is_that_of_all_steps_since_the_last_line() -> None:
    lines: list[str] = []
    log = StepLog(2, 4, lines.append)
    log(record(1, images=1, seconds=3.0))
    log(record(2, images=5, seconds=1.0))
    assert lines[0].endswith(", 1.50 images/s")


def test_scores_of_an_evaluation_are_not_logged_as_steps() -> None:
    lines: list[str] = []
    StepLog(1, 2, lines.append)({"step": 1, "eval/accuracy": 0.5})
    assert lines == []


def test_a_run_logs_its_steps_or_shows_a_bar(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    drawn: list[str] = []

    @contextmanager
    def bars(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
        drawn.append(description)
        yield lambda done, total: None

    def logged(name: str, *, log_steps: bool) -> list[str]:
        lines: list[str] = []
        drawn.clear()
        config = runs.config(dataset, family.directory, tmp_path / name, use_lora=True, tqdm=True, logging_steps=2)
        run.train(config, family, runs.ONE, bars, lines.append, log_steps=log_steps)
        return [line for line in lines if line.startswith("step ")]

    lines = logged("logged", log_steps=True)
    assert [line.split(":")[0] for line in lines] == ["step 2 of 3", "step 3 of 3"]
    for line in lines:
        assert re.fullmatch(r"step \d of 3: loss \d\.\d{4}, learning rate \d\.\d\de-\d\d, \d[\d.,]* images/s", line)
    assert drawn == ["counting tokens"]
    assert logged("drawn", log_steps=False) == []
    assert drawn == ["counting tokens", "training"]


def test_logging_steps_may_change_when_a_run_resumes(dataset: Path, family: Phi3VFamily) -> None:
    first, second = (
        runs.config(dataset, family.directory, dataset, logging_steps=steps).resume_fingerprint() for steps in (1, 9)
    )
    assert first == second
    with pytest.raises(KeyError):
        first["--logging_steps"]

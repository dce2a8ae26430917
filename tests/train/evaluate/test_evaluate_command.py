"""`convkit evaluate` on the command line: exit codes, scores, and the report."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convkit.cli import main
from convkit.metrics.predictions import read_predictions
from convkit.train.evaluate import run
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models import model_family
from tests.fixtures.builders import manifest
from tests.train.evaluate.helpers import ROWS, TURNS, arguments, rows, write_dataset
from tests.train.helpers import runs


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `convkit evaluate` and returns its exit code."""

    def exit_code(*given: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["convkit", "evaluate", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return exit_code


def test_metrics_are_checked_before_anything_is_answered(
    options: EvaluateOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Any
) -> None:
    assert evaluate(*arguments(options, tmp_path / "c"), "--metrics", "f1") == 2
    assert "There is no metric 'f1'" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_command_writes_scores_and_a_report(
    options: EvaluateOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Any
) -> None:
    assert not evaluate(*arguments(options, tmp_path / "c"))
    out = capsys.readouterr().out
    assert "accuracy" in out
    assert out.endswith(f"report: {tmp_path / 'c' / 'run.html'}\n")
    scores = json.loads((tmp_path / "c" / "scores.json").read_text())
    assert scores["sources"][0]["turns"] == TURNS
    page = (tmp_path / "c" / "run.html").read_text()
    assert "Evaluation. Finished." in page
    assert "data:image/jpeg;base64," in page
    (tmp_path / "c" / "run.json").write_text("{}")
    assert not evaluate(*arguments(options, tmp_path / "c"))
    assert "could not write the report: " in capsys.readouterr().err


def test_the_command_logs_its_progress_without_a_terminal(
    options: EvaluateOptions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    evaluate: Any,
) -> None:
    monkeypatch.setattr("convkit.utils.progress.LOG_EVERY_S", 0.0)
    assert not evaluate(*arguments(options, tmp_path / "c"))
    assert f"answering: {TURNS} of {TURNS} questions (100%)" in capsys.readouterr().err


def test_a_split_without_labels_is_answered_but_not_scored(
    options: EvaluateOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Any
) -> None:
    data = write_dataset(tmp_path / "unlabelled", rows(labelled=False))
    files = {"pets_test.jsonl": (data / "pets_train.jsonl").read_bytes()}
    (data / "pets_train.jsonl").rename(data / "pets_test.jsonl")
    (data / "dataset.json").write_bytes(manifest(files, test="pets_test.jsonl"))
    runs.receipt(data, model_family(options.model).profile)
    given = arguments(replace(options, data_dir=data, split="test"), tmp_path / "c")
    assert not evaluate(*given)
    assert len(read_predictions(tmp_path / "c" / run.PREDICTIONS)) == ROWS
    assert "no turn has a gold answer" in capsys.readouterr().out


def test_a_token_profile_as_model_is_explained(
    options: EvaluateOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluate: Any
) -> None:
    profile = replace(options, model=Path("phi-3.5-vision"))
    assert evaluate(*arguments(profile, tmp_path / "c")) == 2
    message = capsys.readouterr().err
    assert "phi-3.5-vision is a token profile" in message and "needs a checkpoint directory" in message
    assert not (tmp_path / "c").exists()

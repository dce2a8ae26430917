"""Resuming an evaluation: the same file after any interruption, and refusal of other inputs or options."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import ConvkitError
from convkit.train.evaluate import run
from convkit.train.evaluate.generate import Generator
from convkit.train.evaluate.options import EvaluateOptions
from tests.train.evaluate.helpers import TURNS, predictions


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_a_truncated_predictions_file_is_completed_to_the_same_bytes(
    options: EvaluateOptions, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predictions(options)
    cut = expected[: int(len(expected) * share)]
    (options.output_dir / run.PREDICTIONS).unlink()
    (options.output_dir / "predictions.part.jsonl").write_bytes(cut)
    calls = []
    answer = Generator.__call__

    def counted(self: Generator, batch: dict[str, Any]) -> Any:
        calls.append(1)
        return answer(self, batch)

    monkeypatch.setattr(Generator, "__call__", counted)
    assert predictions(options) == expected
    assert len(calls) == TURNS // 2 - cut.count(b"\n") // 2


def test_a_finished_evaluation_is_not_repeated(options: EvaluateOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = predictions(options)
    monkeypatch.setattr(Generator, "__call__", None)
    assert predictions(options) == expected


@pytest.mark.parametrize(
    ("change", "named"), [({"context": "images_only"}, "--context"), ({"max_new_tokens": 5}, "--max_new_tokens")]
)
def test_a_directory_with_another_evaluation_is_refused(
    options: EvaluateOptions, change: dict[str, Any], named: str
) -> None:
    predictions(options)
    with pytest.raises(ConvkitError, match=f"another evaluation: {named}"):
        predictions(replace(options, **change))


def test_options_can_change_until_the_first_answer_is_written(options: EvaluateOptions, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"contains no adapter_model\.safetensors"):
        predictions(replace(options, adapter=tmp_path))
    with pytest.raises(ConvkitError, match="Raise --max_tokens"):
        predictions(replace(options, max_tokens=3))
    found = predictions(options)
    written = json.loads((options.output_dir / run.EVALUATION).read_bytes())
    assert (written["--model"], written["adapter"]) == (str(options.model), None)
    assert predictions(replace(options, max_tokens=4096)) == found  # it refuses prompts, and changes none


def test_a_training_run_is_not_overwritten(options: EvaluateOptions) -> None:
    options.output_dir.mkdir()
    for name in ("config.json", "run.json"):
        (options.output_dir / name).write_text("{}")
    with pytest.raises(ConvkitError, match=r"contains config\.json of a training run"):
        predictions(options)
    assert (options.output_dir / "run.json").read_text() == "{}"


def test_predictions_without_evaluation_json_are_refused(options: EvaluateOptions) -> None:
    options.output_dir.mkdir()
    (options.output_dir / run.PREDICTIONS).write_text("{}\n")
    with pytest.raises(ConvkitError, match=r"evaluation\.json cannot be read"):
        predictions(options)

"""Predictions: every turn in order, the same for every batch size and number of processes, with or without adapters."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convkit.errors import ConvkitError
from convkit.metrics.predictions import read_predictions
from convkit.schema import Row
from convkit.train.evaluate import run
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models import model_family
from tests.train.evaluate.helpers import ROWS, arguments, predictions, rows, validated_dataset


def test_every_turn_is_answered_in_order(options: EvaluateOptions) -> None:
    predictions(options)
    found = read_predictions(options.output_dir / run.PREDICTIONS)
    assert [(p.id, p.turn) for p in found] == [(f"r{n}", t) for n in range(ROWS) for t in range(2 - n % 2)]
    assert [p.gold for p in found] == [t["assistant"] for row in rows() for t in row["conversations"]]


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 8}, {"dataloader_num_workers": 1}])
def test_answers_do_not_depend_on_batch_size_or_workers(
    options: EvaluateOptions, tmp_path: Path, change: dict[str, int]
) -> None:
    other_options = replace(options, output_dir=tmp_path / "b", **change)  # type: ignore[arg-type]
    first = [json.loads(line) for line in predictions(options).splitlines()]
    other = [json.loads(line) for line in predictions(other_options).splitlines()]
    assert [{**p, "score": 0} for p in first] == [{**p, "score": 0} for p in other]
    assert [p["score"] for p in first] == pytest.approx([p["score"] for p in other], abs=1e-4)


def test_two_processes_write_the_same_file_as_one(options: EvaluateOptions, tmp_path: Path) -> None:
    expected = predictions(options)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "convkit", "evaluate"]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments(options, tmp_path / "two")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / run.PREDICTIONS).read_bytes() == expected


def test_an_answer_too_long_to_score_is_reported(options: EvaluateOptions, tmp_path: Path) -> None:
    content = rows()
    content[1]["conversations"][0]["assistant"] = "x" * 100_001
    data = validated_dataset(tmp_path / "long", options.model, content)
    with pytest.raises(ConvkitError, match=r"Turn 0 of row 'r1' cannot be scored: gold: .* 100000 characters"):
        predictions(replace(options, data_dir=data))


def test_a_lora_adapter_changes_the_scores(options: EvaluateOptions, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    with pytest.raises(ConvkitError, match=r"contains no adapter_model\.safetensors"):
        predictions(replace(options, adapter=tmp_path))
    loaded = model_family(options.model).load(torch.float32, "sdpa")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(loaded, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
        adapted.save_pretrained(tmp_path / "adapter")
    scores = []
    for name, adapter in {"without": None, "with": tmp_path / "adapter"}.items():
        predictions(replace(options, output_dir=tmp_path / name, adapter=adapter))
        scores.append([p.score for p in read_predictions(tmp_path / name / run.PREDICTIONS)])
    assert scores[0] != pytest.approx(scores[1], abs=1e-2)


def test_image_embeddings_have_the_dtype_of_text_embeddings_under_autocast(options: EvaluateOptions) -> None:
    family = model_family(options.model)
    loaded = family.load(torch.float32, "sdpa")
    dtypes = []
    loaded.model.connector.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    batch = family.collate([family.encode(Row.model_validate(rows()[1]), options.data_dir / "images")], False)
    with torch.autocast("cpu", torch.bfloat16):
        loaded(**batch)
    assert dtypes == [torch.float32]

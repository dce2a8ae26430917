"""Comparing our training with the recipe's way in one process, on the CPU with a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import train_speed
from benchmarks.compare_train import app
from benchmarks.recipe_train import RecipeSharding
from convkit.errors import ConvkitError
from convkit.train.bench.timeline import SECTIONS

TINY = "--model_size tiny --num_crops 1 --batch_size 2 --steps 1 --warmup_steps 1 --no_tqdm --dataloader_num_workers 0"


def test_both_ways_are_measured_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = f"{TINY} --method lora --steps 2 --baseline_steps 1 --lora_rank 4 --json {file}"
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert result.exit_code == 0
    assert "ratio: " in result.output
    found = json.loads(file.read_text())
    ours, theirs = found["convkit"], found["recipe"]
    assert (ours["micro_batches_per_step"], theirs["micro_batches_per_step"]) == (1, 2)
    assert found["ratio"] == pytest.approx(ours["rows_per_second"] / theirs["rows_per_second"], rel=1e-3)
    assert found["options"]["lora_rank"] == 4
    assert found["baseline_steps"] == {"warmup": 1, "measured": 1, "profiled": 0}
    for measured in (ours, theirs):
        assert list(measured["ms_per_step"]) == list(SECTIONS)
        assert measured["images_per_second"] == measured["rows_per_second"]
        assert measured["mfu"] * found["matmul_tflops"] == pytest.approx(measured["tflop_per_second"], rel=1e-3)
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-3)


def test_our_result_is_written_before_the_recipes_way_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"

    def killed(*_: Any, **__: Any) -> None:
        assert json.loads(file.read_text())["convkit"]["rows_per_second"] > 0
        raise KeyboardInterrupt

    monkeypatch.setattr(RecipeSharding, "forward", killed)
    result = CliRunner().invoke(app, [*TINY.split(), "--json", str(file)])
    assert result.exit_code == 130


def test_our_result_is_kept_if_the_recipes_way_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConvkitError("It does not fit.")

    monkeypatch.setattr(RecipeSharding, "forward", fail)
    file = tmp_path / "result.json"
    result = CliRunner().invoke(app, [*TINY.split(), "--json", str(file)])
    assert str(result.exception) == "The recipe's way could not be measured. It does not fit."
    found = json.loads(file.read_text())
    assert found["convkit"]["rows_per_second"] > 0 and "recipe" not in found
    assert found["failure"] == str(result.exception)


@pytest.mark.slow
def test_train_speed_measures_lora_and_the_recipes_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = f"{TINY} --max_tokens 1500 --no_bf16 --optim adamw --lora_rank 4"
    command = ["train_speed", "--results", str(tmp_path), "lora", "--", *tiny.split()]
    monkeypatch.setattr("sys.argv", command)
    train_speed.main()
    found = json.loads((tmp_path / "bench_lora.json").read_text())
    assert found["ratio"] > 0 and found["recipe"]["rows_per_second"] > 0
    assert f"{found['ratio']:.1f}" in capsys.readouterr().out

"""`convkit bench train` and `convkit bench data`: their results, on the CPU with a tiny model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convkit.cli import app
from convkit.errors import ConvkitError
from convkit.train.bench.timeline import SECTIONS
from tests.conftest import ROOT

TRAIN = "bench train --model_size tiny --num_crops 1 --batch_size 2 --warmup_steps 1 --no_tqdm"
TRAIN += " --dataloader_num_workers 0"


def test_bench_train_measures_lora(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = f"{TRAIN} --method lora --steps 2 --lora_rank 4 --json {file}"
    result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert result.exit_code == 0
    assert "images/s" in result.output and "language backward" in result.output
    found = json.loads(file.read_text())
    measured = found["convkit"]
    assert (found["method"], found["workload"], found["options"]["lora_rank"]) == ("LoRA", "document", 4)
    assert found["steps"] == {"warmup": 1, "measured": 2, "profiled": 1}
    assert "warmup_steps" not in found["options"]
    assert measured["micro_batches_per_step"] == 1
    assert list(measured["ms_per_step"]) == list(SECTIONS)
    assert measured["images_per_second"] == measured["rows_per_second"] > 0
    assert measured["mfu"] * found["matmul_tflops"] == pytest.approx(measured["tflop_per_second"], rel=1e-3)
    assert len(measured["losses"]) == 2


def test_bench_train_takes_a_dataset_without_a_receipt(tmp_path: Path) -> None:
    directory, file = ROOT / "tests/fixtures/datasets/valid/with_manifest", tmp_path / "result.json"
    command = [*TRAIN.split(), "--steps", "1", "--data_dir", str(directory), "--json", str(file)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert found["workload"].startswith("dataset ") and len(found["convkit"]["losses"]) == 1
    assert str(ROOT) not in file.read_text()


def test_bench_data_measures_stages_and_worker_processes(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = "bench data --workload video --num_crops 1 --rows 10 --workers 1 --target_rate 0.001 --target_rate 1e6"
    result = CliRunner().invoke(app, [*command.split(), "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0 and "decoding" in result.output
    found = json.loads(file.read_text())
    assert (found["workload"], found["num_crops"], found["rows"], found["images"]) == ("video", 1, 10, 80)
    assert "platform" not in found["hardware"]
    assert found["workers_for"]["0.001"] == 1 < found["workers_for"]["1000000.0"]
    assert min(found["ms_per_image"][stage] for stage in ("decoding", "resizing", "cutting tiles")) > 0


@pytest.mark.parametrize("command", ["bench train --model_size tiny", "bench data"])
def test_a_json_file_in_a_missing_directory_is_refused_before_measuring(tmp_path: Path, command: str) -> None:
    file = tmp_path / "nowhere" / "result.json"
    result = CliRunner().invoke(app, [*command.split(), "--json", str(file)])
    assert isinstance(result.exception, ConvkitError) and not result.stdout
    assert str(result.exception) == f"--json {file}: the directory {file.parent} does not exist. Create it first."

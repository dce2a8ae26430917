"""Metrics: throughput, experiment trackers, the dry run of a checkpoint, and determinism on request."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convkit.errors import ConvkitError, MissingExtra
from convkit.train import run
from convkit.train.checkpoint import store as checkpoints
from convkit.train.distributed.world import World
from convkit.train.metrics import throughput
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.preflight import memory
from convkit.utils.progress import Note, Progress
from tests.train.helpers import runs


def train(dataset: Path, family: Phi3VFamily, out: Path, **options: Any) -> list[dict[str, Any]]:
    chosen = runs.config(dataset, family.directory, out, use_lora=True, **options)
    run.train(chosen, family, runs.ONE, log=lambda text: None)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_each_step_has_its_throughput(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    lines = train(dataset, family, tmp_path / "run")
    assert sum(line["images"] for line in lines) == 4  # every third of ten rows has one
    for line in lines:
        assert line["images_per_second"] == pytest.approx(line["images"] / line["seconds"], rel=0.01, abs=0.001)
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"], rel=0.01)
        assert 0.1 < line["memory_gib"] < 64
        assert "mfu" not in line


def test_mfu_is_relative_to_the_peak_flops_of_all_gpus(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {0: "NVIDIA H100 80GB HBM3", 1: "NVIDIA H100 PCIe", 2: "Tesla V100-SXM2-32GB", 3: "NVIDIA B17"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    monkeypatch.setattr(throughput, "peak_memory", lambda device: 2 * throughput.GIB)
    config = runs.config(dataset, family.directory, dataset, bf16=True)
    cards = [torch.device("cuda", index) for index in names]
    assert [throughput.peak_flops(config, card) for card in cards] == [989e12, 756e12, 125e12, None]
    assert throughput.peak_flops(runs.config(dataset, dataset, dataset), cards[0]) is None
    trainer, _ = runs.parts(config, family)
    tokens = trainer.schedule.tokens(trainer.schedule.batch(0))
    of_four = throughput.Throughput(
        trainer.schedule, trainer.index, config, World(0, 4, cards[0]), flops_per_token=10**12
    )
    seen = of_four.step(0, 1.5, 2.0)
    assert seen["mfu"] == pytest.approx(tokens / 2 / (4 * 989), abs=1e-4)
    assert of_four.text().startswith("loss 1.500 · ")
    assert of_four.text().endswith(f" tokens/s · 2.0 GiB · MFU {seen['mfu']:.0%}")


def test_flops_per_token_depend_on_the_trained_parameters() -> None:
    parts = {
        "language": memory.ModelPart(parameters=100, trainable=10),
        "head": memory.ModelPart(parameters=20),
        "vision": memory.ModelPart(parameters=1000, trainable=1000),
    }
    assert memory.Preflight(1, 1, 1, parts, 1.0).flops_per_token == 4 * 120 + 2 * 10


def test_the_progress_bar_shows_the_last_step(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    notes: list[str] = []

    @contextmanager
    def bars(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
        yield lambda done, whole: notes.append(f"{description} {done} {note()}")

    chosen = runs.config(dataset, family.directory, tmp_path / "run", use_lora=True, tqdm=True)
    run.train(chosen, family, runs.ONE, bars, log=lambda text: None)
    assert [note[:18] for note in notes[-3:]] == ["training 4 loss 6.", "training 8 loss 6.", "training 10 loss 6"]


def test_tensorboard_continues_when_a_run_resumes(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard")
    lines = train(dataset, family, tmp_path / "run", report_to="tensorboard", save_steps=2)
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000003")  # as if it had been killed after step 2
    train(dataset, family, tmp_path / "run", report_to="tensorboard", save_steps=2, resume="auto")
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    curve = events.Scalars("loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert [point.value for point in curve] == pytest.approx([line["loss"] for line in lines])


def test_wandb_gets_one_run_also_after_resuming(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    logger = SimpleNamespace(log=lambda curves, step: seen.append((step, curves)), finish=lambda: seen.append("end"))
    starts: list[dict[str, Any]] = []

    def init(**options: Any) -> SimpleNamespace:
        starts.append(options)
        return logger

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    lines = train(dataset, family, tmp_path / "run", report_to="wandb")
    train(dataset, family, tmp_path / "run", report_to="wandb", resume="auto")
    assert [step for step, _ in seen[:3]] == [1, 2, 3]
    assert [curves["loss"] for _, curves in seen[:3]] == [line["loss"] for line in lines]
    assert seen[3:] == ["end", "end"]
    assert starts[0]["id"] == starts[1]["id"]
    shutil.rmtree(tmp_path / "run")
    train(dataset, family, tmp_path / "run", report_to="wandb")
    assert starts[2]["id"] != starts[0]["id"]  # another run, in the same place
    assert starts[0]["config"]["learning_rate"] == 0.001


def test_trackers_that_are_not_installed_are_refused_first(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"--report_to wandb needs the package wandb.*'convkit-vlm\[wandb\]'"):
        train(dataset, family, tmp_path / "run", report_to="tensorboard, wandb")
    with pytest.raises(ConvkitError, match=r"does not know 'paper'\. Choose from: tensorboard, wandb"):
        train(dataset, family, tmp_path / "run", report_to="paper")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_checked_before_the_first_step_and_removed(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any) -> None:
        raise ConvkitError("it cannot be loaded")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "load", unreadable)
        with pytest.raises(ConvkitError, match="it cannot be loaded"):
            train(dataset, family, tmp_path / "run")
        train(dataset, family, tmp_path / "untried", check_checkpoint=False)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "run.json"}
    train(dataset, family, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_too_little_disk_space_is_an_error_before_the_first_step(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        ConvkitError, match=r"A checkpoint takes 0\.\d\d GB; .* 0\.00 GB are free.* lower --save_total_limit"
    ):
        train(dataset, family, tmp_path / "run")
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_deterministic_mode_is_on_only_during_the_run(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seen: list[bool] = []
    usual = memory.preflight

    def look(*arguments: Any) -> memory.Preflight:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return usual(*arguments)

    monkeypatch.setattr(memory, "preflight", look)
    plain = train(dataset, family, tmp_path / "plain")
    strict = train(dataset, family, tmp_path / "strict", deterministic=True)
    assert seen == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert [line["loss"] for line in strict] == [line["loss"] for line in plain]

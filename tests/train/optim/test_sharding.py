"""Distributed runs of two processes (plain, ZeRO, FSDP): the same weights as one process, kills, and failures."""

import importlib.util
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convkit.errors import ConvkitError
from convkit.train import run
from convkit.train.checkpoint import store as checkpoints
from convkit.train.config import resolve
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs
from tests.train.helpers.forks import Forks

# With batches of three rows and of one, a rank has fewer micro-batches than the other or none; most have no image.
OPTIONS: dict[str, Any] = {"num_train_epochs": 2, "batch_size": 3, "batch_size_per_gpu": 1, "save_steps": 3}
STEPS = 8
EVALUATED = {"eval_split": "train", "eval_batch_size": 2, "eval_max_new_tokens": 4}
SHARDINGS: dict[str, dict[str, Any]] = {
    "plain": EVALUATED,
    "zero2": {"deepspeed": "zero2", **EVALUATED},
    "zero3": {"deepspeed": "zero3"},
    "fsdp": {"fsdp": True, "gradient_checkpointing": "all"},
}
SLOW = pytest.mark.slow
Reports = list[list[dict[str, Any]]]


def on_two(forks: Forks, dataset: Path, checkpoint: Path, scratch: Path, *wanted: dict[str, Any]) -> Reports:
    if not importlib.util.find_spec("deepspeed") and any("deepspeed" in each["options"] for each in wanted):
        pytest.skip("deepspeed is not installed")
    reports: Reports = forks("ranks", dataset, checkpoint, scratch, *wanted, folder=scratch.parent)
    return reports


def tensors(out: Path) -> dict[str, torch.Tensor]:
    last = checkpoints.checkpoints(out)[-1]
    assert last.name == f"step-{STEPS:08}"
    found: dict[str, torch.Tensor] = load_file(last / "state.safetensors")
    return found


def one_process(dataset: Path, family: Phi3VFamily, out: Path, **options: Any) -> list[str]:
    """Train the same run in one process, without sharding; return the log."""
    chosen = runs.config(dataset, family.directory, out, **{**options, "deepspeed": None, "fsdp": False})
    lines: list[str] = []
    run.train(chosen, family, runs.ONE, log=lines.append)
    return lines


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Compare tensors with a tolerance of 1e-6."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6, msg=name)


def model(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = Phi3VFamily(out / "final/model").load(torch.float32).state_dict()
    return found


def measured(out: Path) -> list[float]:
    """Return loss and gradient norm of all steps; AdamW's weights alone would not show a wrong scale."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    return [line[name] for name in ("loss", "grad_norm") for line in lines]


def answered(out: Path) -> dict[str, bytes]:
    """Return the predictions by step."""
    return {path.parent.name: path.read_bytes() for path in out.glob("evaluations/*/predictions.jsonl")}


@pytest.mark.seeded
@pytest.mark.parametrize("sharding", [s if s == "fsdp" else pytest.param(s, marks=SLOW) for s in SHARDINGS])
def test_two_processes_killed_and_resumed_train_the_weights_of_one(
    forks: Forks, dataset: Path, family: Phi3VFamily, tmp_path: Path, sharding: str, seed: int
) -> None:
    chance = random.Random(seed)
    options = {**OPTIONS, **SHARDINGS[sharding]}
    killed = {"name": "killed", "options": {**options, "resume": "auto"}}
    reports = on_two(
        forks,
        dataset,
        family.directory,
        tmp_path / "two",
        {"name": "undisturbed", "options": options},
        {**killed, "kill": "all", "at": chance.random()},
        {**killed, "kill": "one", "at": chance.uniform(0, 0.25)},
        killed,
    )
    context = f"seed {seed}: {reports}"
    statuses = [[process["status"] for process in each] for each in reports]
    assert statuses == [[0, 0], [-9, -9], [2, -9], [0, 0]], context
    assert "error: Another process of this run has ended: it was killed" in reports[2][0]["log"], context
    resumed = [each[0]["log"].count("resuming after step") for each in reports]
    assert resumed[3] == resumed[2] + 1, context
    one_process(dataset, family, tmp_path / "one", **options)

    undisturbed = tmp_path / "two/undisturbed"
    state = tensors(undisturbed)
    assert_close(state, tensors(tmp_path / "one"))
    assert measured(undisturbed) == pytest.approx(measured(tmp_path / "one"), rel=1e-5)
    assert measured(tmp_path / "two/killed") == measured(undisturbed), context
    answers = [answered(tmp_path / out) for out in ("one", "two/undisturbed", "two/killed")]
    assert answers[0] == answers[1] == answers[2], context
    assert len(answers[0]) == (2 if "eval_split" in options else 0)
    again = tensors(tmp_path / "two/killed")
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items()), context
    saved = model(undisturbed)
    assert_close(saved, model(tmp_path / "one"))
    trained = {name.removeprefix("weight/"): t for name, t in state.items() if name.startswith("weight/")}
    assert all(torch.equal(saved[name], tensor) for name, tensor in trained.items())


def test_two_processes_without_sharding_train_the_weights_of_one(
    forks: Forks, dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    options = {**OPTIONS, "check_checkpoint": False}
    reports = on_two(forks, dataset, family.directory, tmp_path / "two", {"name": "run", "options": options})
    assert [process["status"] for process in reports[0]] == [0, 0], reports
    one_process(dataset, family, tmp_path / "one", **options)
    two, one = tmp_path / "two/run", tmp_path / "one"
    assert_close(tensors(two), tensors(one))
    assert measured(two) == pytest.approx(measured(one), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["zero2", "zero3", "fsdp"])
def test_a_frozen_vision_tower_is_unchanged_and_a_run_resumes_with_another_sharding(
    forks: Forks, dataset: Path, family: Phi3VFamily, tmp_path: Path, sharding: str
) -> None:
    options = {**OPTIONS, **SHARDINGS[sharding], "freeze_vision_model": True}
    scratch = tmp_path / "runs"
    reports = on_two(forks, dataset, family.directory, scratch, {"name": "two", "options": options})
    assert [process["status"] for process in reports[0]] == [0, 0], reports
    two, one = scratch / "two", scratch / "one"
    one_process(dataset, family, one, **options)
    state, trained = tensors(one), model(one)
    assert_close(tensors(two), state)
    assert_close(model(two), trained)

    shutil.rmtree(two / "final")  # all steps are done
    shutil.rmtree(checkpoints.checkpoints(one)[-1])
    wanted = [{"name": name, "options": {**options, "resume": "auto"}} for name in ("two", "one")]
    reports = on_two(forks, dataset, family.directory, scratch, *wanted)
    assert [process["status"] for each in reports for process in each] == [0] * 4, reports
    assert_close(model(two), trained)
    assert_close(tensors(one), state)

    shutil.rmtree(checkpoints.checkpoints(two)[-1])
    lines = one_process(dataset, family, two, **options, resume="auto")
    option = "--fsdp" if sharding == "fsdp" else f"--deepspeed {sharding}"
    assert any(f"from 2 processes with {option}, this run has 1 process:" in text for text in lines), lines
    assert_close(tensors(two), state)


@pytest.mark.slow
def test_two_processes_with_adamw_bf16_take_the_steps_of_one(
    forks: Forks, dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    options = {**OPTIONS, "bf16": True, "optim": "adamw_bf16"}
    reports = on_two(forks, dataset, family.directory, tmp_path / "two", {"name": "run", "options": options})
    assert [process["status"] for process in reports[0]] == [0, 0], reports
    one_process(dataset, family, tmp_path / "one", **options)
    outs = tmp_path / "two/run", tmp_path / "one"
    assert measured(outs[0]) == pytest.approx(measured(outs[1]), rel=0.05)
    start = {f"weight/{name}": tensor for name, tensor in family.load(torch.float32).named_parameters()}
    ours, theirs = (
        torch.cat([(found[name] - start[name]).flatten() for name in start if name in found])
        for found in map(tensors, outs)
    )
    assert (ours - theirs).norm() < 0.2 * theirs.norm()


@pytest.mark.slow
def test_two_processes_in_float16_share_one_loss_scale(
    forks: Forks, dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    options = {**OPTIONS, "fp16": True}
    reports = on_two(forks, dataset, family.directory, tmp_path / "two", {"name": "run", "options": options})
    assert [process["status"] for process in reports[0]] == [0, 0], reports
    one_process(dataset, family, tmp_path / "one", **options)
    outs = tmp_path / "two/run", tmp_path / "one"
    assert_close(*map(tensors, outs))
    scales = [checkpoints.read_state(checkpoints.checkpoints(out)[-1]).loss_scale for out in outs]
    assert scales[0] == scales[1]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "number": ({"deepspeed": "zero2"}, r"The loss of step 3 is not a number; its rows: 'r\d'(, 'r\d')?\. Nothing"),
    "memory": (
        {"fsdp": True},
        r"Micro-batch 1 of step 3, of [\d,]+ tokens \(rows 'r\d'\), does not fit .* Lower --max_tokens",
    ),
    # The message depends on whether the image was just being opened.
    "image": ({}, r"Row 'r\d' has an unusable image: '\d\.png' (is not in images/|cannot be read)"),
}


@pytest.mark.parametrize("fault", [f if f == "image" else pytest.param(f, marks=SLOW) for f in FAULTS])
def test_the_failure_of_one_rank_ends_both_and_both_report_it(
    forks: Forks, family: Phi3VFamily, tmp_path: Path, fault: str
) -> None:
    dataset = runs.write_dataset(tmp_path / "pets")
    options, message = FAULTS[fault]
    wanted = {"name": "run", "options": {**OPTIONS, **options}, "fault": fault}
    (processes,) = on_two(forks, dataset, family.directory, tmp_path / "two", wanted)
    for process in processes:
        assert process["status"] == 2, process
        assert re.search(message, process["log"].split("error: ")[1]), process["log"]


PATHS = {"data_dir": "d", "model": "m", "output_dir": "r"}


@pytest.mark.parametrize("sharding", [{"deepspeed": "zero2"}, {"deepspeed": "zero3"}, {"fsdp": True}])
@pytest.mark.parametrize("option", ["use_lora", "use_qlora", "fp16"])
def test_adapters_and_float16_cannot_be_sharded(sharding: dict[str, Any], option: str) -> None:
    name = resolve({**PATHS, **sharding}).sharding
    with pytest.raises(ConvkitError, match=f"{name} cannot be combined with --{option}: .* [Ll]eave {name} out"):
        resolve({**PATHS, **sharding, option: True})


def test_two_kinds_of_sharding_cannot_be_combined() -> None:
    with pytest.raises(ConvkitError, match=r"--fsdp cannot be combined with --deepspeed zero2\. Leave one of them out"):
        resolve({**PATHS, "fsdp": True, "deepspeed": "zero2"})

"""Killed runs resume to the same weights, and two processes train the same weights as one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convkit.train.checkpoint import store as checkpoints
from convkit.train.checkpoint.state import RunState
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs
from tests.train.helpers.forks import Forks
from tests.train.helpers.processes import ENVIRONMENT, join_variables
from tests.train.helpers.runs import last_tensors, losses, train

EVALUATED = {"eval_split": "train", "eval_steps": 3, "eval_limit": 4, "eval_max_new_tokens": 2}


SLOW = pytest.mark.slow
METHODS: dict[str, dict[str, Any]] = {
    "full": {"batch_size_per_gpu": 2, **EVALUATED},
    "frozen": {"freeze_vision_model": True, "dataloader_num_workers": 1},
    "lora": {"use_lora": True, "lora_dropout": 0.1},
    "lora float16": {"use_lora": True, "fp16": True},
    "compact": {"bf16": True, "optim": "adamw_bf16"},
    "lora compact": {"use_lora": True, "full_vision_model": True, "bf16": True, "optim": "adamw_bf16"},
    "lora float8": {"use_lora": True, "bf16": True, "fp8": True},
    "qlora": {"use_qlora": True, "bf16": True},
}


def states(out: Path) -> list[RunState]:
    """Return the states of all checkpoints of a run."""
    return [checkpoints.read_state(path) for path in checkpoints.checkpoints(out)]


@pytest.mark.seeded
@pytest.mark.parametrize("method", [m if m in ("full", "lora") else pytest.param(m, marks=SLOW) for m in METHODS])
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(
    checkpoint: Path, forks: Forks, tmp_path: Path, method: str, seed: int
) -> None:
    if "qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    # Half precision and 4 bits are slow on a CPU.
    short = any(kind in method for kind in ("float16", "qlora", "compact"))
    rows, steps, every = (10, 6, 2) if short else (40, 20, 3)
    options = {"num_train_epochs": 2, "save_steps": every, **METHODS[method]}
    dataset = runs.write_dataset(tmp_path / "pets", runs.rows(rows))
    report = forks("kills", dataset, checkpoint, tmp_path, seed, options, folder=tmp_path)
    context = f"seed {seed}: {report}"
    assert "resuming after step" in report["log"], context
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert losses(killed) == losses(undisturbed), context
    assert len(losses(killed)) == steps
    assert states(killed) == states(undisturbed), context
    ours, theirs = last_tensors(killed), last_tensors(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), context
    answers = [
        sorted((p.parent.name, p.read_bytes()) for p in out.rglob("predictions.jsonl")) for out in (killed, undisturbed)
    ]
    assert answers[0] == answers[1], context
    assert len(answers[0]) == (8 if "eval_split" in options else 0)
    for folder in ("final", f"checkpoints/step-{steps:08}"):
        names = [
            sorted(p.relative_to(out / folder) for p in (out / folder).rglob("*")) for out in (killed, undisturbed)
        ]
        assert names[0] == names[1]
    assert not [path for path in killed.rglob(".*") if path.is_dir()]


@pytest.mark.slow
def test_two_processes_train_the_same_weights_as_one(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "one", max_tokens=500)
    common = {**os.environ, **ENVIRONMENT, **join_variables(2)}
    options = runs.config(dataset, family.directory, tmp_path / "two", max_tokens=500).to_json()
    (tmp_path / "config.yaml").write_text(json.dumps(options))  # JSON is YAML
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "convkit", "train", "--config", tmp_path / "config.yaml"],
            env={**common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "10 rows planned = 10 trained" in outputs[0][0]
    assert [outputs[0][1], *outputs[1]] == [""] * 3  # no warnings of libraries, and nothing twice
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    one, two = last_tensors(tmp_path / "one"), last_tensors(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6, msg=name)

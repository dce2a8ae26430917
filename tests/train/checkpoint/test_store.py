"""Checkpoint files: damage is named with a remedy, and a full disk leaves no partial checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from convkit.errors import ConvkitError
from convkit.train.checkpoint import store as checkpoints
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers.runs import train


def test_a_damaged_checkpoint_is_named_with_a_remedy(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "run")
    last = checkpoints.checkpoints(tmp_path / "run")[-1]
    content = (last / "state.safetensors").read_bytes()
    (last / "state.safetensors").write_bytes(content[:-100])
    with pytest.raises(ConvkitError, match=r"state\.safetensors cannot be read: .* Remove .*step-00000003"):
        train(dataset, family, tmp_path / "run", resume="auto")


@pytest.mark.parametrize(
    ("step", "problem"), [(-3, "step: Input should be greater than or equal to 0"), (99, "it is the state of step 99")]
)
def test_the_state_of_another_step_is_refused(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, step: int, problem: str
) -> None:
    train(dataset, family, tmp_path / "run")
    state = checkpoints.checkpoints(tmp_path / "run")[-1] / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_bytes()), "step": step}))
    with pytest.raises(ConvkitError, match=rf"{problem}\. Remove .*step-00000003"):
        train(dataset, family, tmp_path / "run", resume="auto")


def test_a_damaged_line_of_metrics_is_named(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "run")
    for damage in ("junk\n", "[1]\n", "{}\n"):
        (tmp_path / "run/metrics.jsonl").write_text(damage)
        with pytest.raises(ConvkitError, match=r"metrics\.jsonl:1 is not a line of metrics"):
            train(dataset, family, tmp_path / "run", resume="auto")


def test_a_full_disk_is_reported_and_leaves_no_partial_checkpoint(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(
        ConvkitError, match=r"step-00000003 cannot be written: .*No space left.* Free disk space.*--resume"
    ):
        train(dataset, family, tmp_path / "run", check_checkpoint=False)
    assert not list((tmp_path / "run/checkpoints").iterdir())

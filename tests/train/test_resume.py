"""Resuming: only the same run is resumed, and a checkpoint is never overwritten."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import ConvkitError
from convkit.train.checkpoint import store as checkpoints
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs
from tests.train.helpers.runs import losses, train


@pytest.fixture(scope="module")
def finished(dataset: Path, family: Phi3VFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    train(dataset, family, out)
    return out


CHANGES: dict[str, dict[str, Any]] = {
    "--learning_rate 0.001 there, 0.002 here": {"learning_rate": 0.002},
    "--weight_decay 0.01 there, 0.0 here": {"weight_decay": 0.0},
    "--batch_size 4 there, 5 here.*; schedule '": {"batch_size": 5},
    "--use_lora False there, True here": {"use_lora": True},
}


@pytest.mark.parametrize("message", CHANGES)
def test_resuming_with_a_changed_option_names_it(
    dataset: Path, family: Phi3VFamily, finished: Path, message: str
) -> None:
    with pytest.raises(ConvkitError, match=f"step-00000003 belongs to another run: .*{message}"):
        train(dataset, family, finished, resume="auto", **CHANGES[message])


def test_an_option_newer_than_the_checkpoint_counts_as_its_default(
    dataset: Path, family: Phi3VFamily, finished: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(finished, tmp_path / "run")
    for file in older.glob("checkpoints/*/state.json"):
        state = json.loads(file.read_bytes())
        del state["fingerprint"]["--fp8"]
        file.write_text(json.dumps(state))
    assert "resuming after step 3" in "".join(train(dataset, family, older, resume="auto"))
    with pytest.raises(ConvkitError, match="--fp8 False there, True here"):
        train(dataset, family, older, resume="auto", use_lora=True, bf16=True, fp8=True)


def test_resuming_with_changed_data_names_what_changed(
    family: Phi3VFamily, finished: Path, checkpoint: Path, tmp_path: Path
) -> None:
    content = runs.rows()
    content[4]["conversations"][0]["user"] += " more"
    other = runs.write_dataset(tmp_path / "pets", content)
    with pytest.raises(ConvkitError, match="belongs to another run: rows '"):
        train(other, family, finished, resume="auto")
    (other / "images/3.png").write_bytes((other / "images/6.png").read_bytes())
    runs.receipt(other)
    with pytest.raises(ConvkitError, match="images '"):
        train(other, family, finished, resume="auto")


def test_an_evaluations_directory_is_not_used_for_a_run(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(
        ConvkitError, match=r"holds evaluation\.json, of convkit evaluate\. Choose another --output_dir"
    ):
        train(dataset, family, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_run_is_never_overwritten_and_a_finished_run_can_be_resumed(
    dataset: Path, family: Phi3VFamily, finished: Path
) -> None:
    before = losses(finished)
    with pytest.raises(ConvkitError, match=r"contains checkpoints of an earlier run\. Add --resume auto"):
        train(dataset, family, finished)
    last = checkpoints.checkpoints(finished)[-1]
    for step in (1, 2):  # as left by a run that was killed before it removed them
        shutil.copytree(last, last.with_name(f"step-{step:08}"), dirs_exist_ok=True)
    log_lines = train(dataset, family, finished, resume="auto", dataloader_num_workers=1)  # does not affect the weights
    assert "resuming after step 3 of 3" in log_lines
    assert [path.name for path in checkpoints.checkpoints(finished)] == ["step-00000002", last.name]
    assert losses(finished) == before


def test_a_checkpoint_of_more_processes_is_resumed_with_a_note(
    dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    train(dataset, family, tmp_path / "run", save_steps=2)
    last = checkpoints.checkpoints(tmp_path / "run")[-1]
    state = json.loads((last / "state.json").read_bytes())
    (last / "state.json").write_text(json.dumps({**state, "processes": 2}))
    assert any(
        "from 2 processes, this run has 1 process" in text
        for text in train(dataset, family, tmp_path / "run", resume="auto")
    )

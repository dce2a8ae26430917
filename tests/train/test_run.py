"""Whole runs: what they write, the receipt they need, stopping, and overlong rows."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.train import trainer
from convkit.train.checkpoint import store as checkpoints
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.preflight import memory
from convkit.validate.run import validate
from tests.train.helpers import runs
from tests.train.helpers.runs import last_tensors, losses, train


def test_a_run_writes_checkpoints_config_and_model(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    out = tmp_path / "run"
    log_lines = train(dataset, family, out, num_train_epochs=3, save_steps=2, save_total_limit=2, learning_rate=0.003)
    assert log_lines[0].startswith("full: 10 rows x 3 epochs = 30 rows planned in 9 steps; schedule ")
    assert log_lines[-1] == f"30 rows planned = 30 trained; {out / 'final'}"
    towers = {line.split(":")[0]: line for line in log_lines[1:-1]}
    assert list(towers) == [
        *("heaviest micro-batch", "language", "vision", "head"),
        *("estimated time of the whole run", "checkpoint"),
    ]
    assert all(" 0 of " not in line for line in towers.values())
    assert [path.name for path in checkpoints.checkpoints(out)] == ["step-00000008", "step-00000009"]
    assert losses(out)[-1] < losses(out)[0]
    assert json.loads((out / "config.json").read_bytes())["learning_rate"] == 0.003
    trained = Phi3VFamily(out / "final" / "model").load(torch.float32)
    before, state = family.load(torch.float32).state_dict(), last_tensors(out)
    changed = 0
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, state.get(f"weight/{name}", before[name])), name
        changed += not torch.equal(tensor, before[name])
    assert changed > 50
    assert Phi3VFamily(out / "final" / "model").num_crops == 1


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft uses an old name
def test_trained_adapters_are_loaded_by_peft(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    from peft import PeftModel

    train(dataset, family, tmp_path / "run", use_lora=True)
    model = PeftModel.from_pretrained(family.load(torch.float32), tmp_path / "run/final/adapter")
    state, named = last_tensors(tmp_path / "run"), dict(model.named_parameters())
    lora = {name.removeprefix("weight/"): tensor for name, tensor in state.items() if name.startswith("weight/")}
    assert {name for name in named if "lora_" in name} == set(lora)
    assert all(torch.equal(named[name], tensor) for name, tensor in lora.items())


def test_a_run_saves_a_checkpoint_on_sigterm(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.Trainer.step

    def asked(self: trainer.Trainer, number: int, *arguments: Any) -> Any:
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number, *arguments)

    monkeypatch.setattr(trainer.Trainer, "step", asked)
    with pytest.raises(trainer.Stopped, match="stopped after step 2 of 6"):
        train(dataset, family, tmp_path / "run", num_train_epochs=2)
    assert [path.name for path in checkpoints.checkpoints(tmp_path / "run")] == ["step-00000002"]
    monkeypatch.undo()
    train(dataset, family, tmp_path / "run", num_train_epochs=2, resume="auto")
    train(dataset, family, tmp_path / "other", num_train_epochs=2)
    assert losses(tmp_path / "run") == losses(tmp_path / "other")


def test_a_dataset_without_receipt_is_refused_with_the_command_to_run(family: Phi3VFamily, tmp_path: Path) -> None:
    data = runs.write_dataset(tmp_path / "pets", validated=False)
    with pytest.raises(DatasetError, match=f"Run: convkit validate {data}"):
        train(data, family, tmp_path / "run")
    validate([data], workers=0)
    with pytest.raises(DatasetError, match=f"not validated for .*Run: convkit validate {data} --model {runs.PROFILE}"):
        train(data, family, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_change_during_a_run_are_named(
    family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = runs.write_dataset(tmp_path / "pets")
    usual = memory.preflight

    def gone_afterwards(*arguments: Any) -> memory.Preflight:
        seen = usual(*arguments)
        (data / "images/3.png").unlink()
        return seen

    monkeypatch.setattr(memory, "preflight", gone_afterwards)
    for workers in (0, 1):
        with pytest.raises(ConvkitError, match=r"Row 'r3' has an unusable image: '3\.png' is not in images/"):
            train(data, family, tmp_path / f"run{workers}", dataloader_num_workers=workers)
        runs.write_dataset(tmp_path / f"again{workers}")
        (data / "images/3.png").write_bytes((tmp_path / f"again{workers}/images/3.png").read_bytes())


def test_rows_with_too_many_tokens_are_named(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"_train\.jsonl:1: row 'r0' has 3\d\d tokens, more than --max_tokens 300"):
        train(dataset, family, tmp_path / "run", max_tokens=300)


def _lengths(dataset: Path, family: Phi3VFamily) -> list[int]:
    rows = [row for _, row in Dataset.open(dataset).rows("train")]
    return [family.length(row, dataset / "images").tokens for row in rows]


def test_overlong_rows_are_refused_or_dropped_and_listed(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    limit = sorted(lengths := _lengths(dataset, family))[5]
    kept = [number for number, length in enumerate(lengths) if length <= limit]
    dropped = [number for number, length in enumerate(lengths) if length > limit]
    assert kept and dropped and kept != list(range(len(kept)))
    with pytest.raises(DatasetError, match=rf"row 'r{dropped[0]}' has .* more than --max_tokens.*--drop_overlong"):
        train(dataset, family, tmp_path / "refused", max_tokens=limit)
    out = tmp_path / "run"
    log_lines = train(dataset, family, out, max_tokens=limit, drop_overlong=True)
    start = (
        f"10 rows = {len(kept)} to train on + {len(dropped)} dropped for more than {limit} tokens: 'r{dropped[0]}' ("
    )
    assert any(line.startswith(start) for line in log_lines)
    assert log_lines[-1].startswith(f"{len(kept)} rows planned = {len(kept)} trained")
    record = [json.loads(line) for line in (out / "dropped.jsonl").read_bytes().splitlines()]
    assert record == [{"line": n + 1, "id": f"r{n}", "tokens": lengths[n]} for n in dropped]
    assert json.loads((out / "config.json").read_bytes())["drop_overlong"] is True
    shorter = [json.loads(line) for line in (dataset / "pets_train.jsonl").read_bytes().splitlines()]
    alone = runs.write_dataset(tmp_path / "kept", [shorter[number] for number in kept])
    train(alone, family, tmp_path / "alone", max_tokens=limit)
    assert losses(out) == losses(tmp_path / "alone")  # those that stay are read from their own places


def test_dropping_all_rows_is_an_error(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="all of its 10 rows have more tokens than --max_tokens 3"):
        train(dataset, family, tmp_path / "run", max_tokens=3, drop_overlong=True)


def test_without_overlong_rows_no_list_is_written(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    log_lines = train(dataset, family, tmp_path / "run", drop_overlong=True)
    assert "dropped" not in " ".join(log_lines)
    assert not (tmp_path / "run/dropped.jsonl").exists()

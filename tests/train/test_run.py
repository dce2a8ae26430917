"""Whole runs: the gate, kills, two processes, what is refused, and what comes of it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.train import run, trainer
from convkit.train.checkpoint import store as checkpoints
from convkit.train.checkpoint.state import RunState
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.preflight import memory
from convkit.train.setup import trainable
from convkit.validate.run import validate
from tests.train.helpers import runs
from tests.train.helpers.forks import Forks
from tests.train.helpers.processes import ENVIRONMENT, meeting

EVALUATED = {"eval_split": "train", "eval_steps": 3, "eval_limit": 4, "eval_max_new_tokens": 2}
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_dataset(tmp_path_factory.mktemp("data") / "pets")


def train(dataset: Path, family: Phi3VFamily, out: Path, **options: Any) -> list[str]:
    """Run in this process; returns what it said."""
    said: list[str] = []
    run.train(runs.config(dataset, family.directory, out, **options), family, runs.ONE, log=said.append)
    return said


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def last_tensors(out: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(checkpoints.checkpoints(out)[-1] / "state.safetensors")
    return tensors


def states(out: Path) -> list[RunState]:
    """Beside the tensors, of all checkpoints that are kept."""
    return [checkpoints.read_state(path) for path in checkpoints.checkpoints(out)]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_in_the_same_weights_bit_for_bit(
    checkpoint: Path, forks: Forks, tmp_path: Path, method: str
) -> None:
    if "qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    seed = random.SystemRandom().randrange(2**32)
    # Half precision and 4 bits are slow on a CPU.
    slow = any(kind in method for kind in ("float16", "qlora", "compact"))
    rows, steps, every = (10, 6, 2) if slow else (40, 20, 3)
    options = {"num_train_epochs": 2, "save_steps": every, **METHODS[method]}
    dataset = runs.write_dataset(tmp_path / "pets", runs.rows(rows))
    told = forks("kills", dataset, checkpoint, tmp_path, seed, options, folder=tmp_path)
    context = f"seed {seed}: {told}"
    assert "resuming after step" in told["said"], context
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


def test_two_processes_come_to_the_same(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "one", max_tokens=500)
    common = {**os.environ, **ENVIRONMENT, **meeting(2)}
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
    assert [outputs[0][1], *outputs[1]] == [""] * 3  # nothing of the libraries' chatter, and nothing twice
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-6)
    one, two = last_tensors(tmp_path / "one"), last_tensors(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_what_comes_of_a_run(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = train(dataset, family, out, num_train_epochs=3, save_steps=2, save_total_limit=2, learning_rate=0.003)
    assert said[0].startswith("full: 10 rows x 3 epochs = 30 rows planned in 9 steps; schedule ")
    assert said[-1] == f"30 rows planned = 30 trained; {out / 'final'}"
    towers = {line.split(":")[0]: line for line in said[1:-1]}
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


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks by an old name
def test_adapters_are_loaded_by_peft(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    from peft import PeftModel

    train(dataset, family, tmp_path / "run", use_lora=True)
    model = PeftModel.from_pretrained(family.load(torch.float32), tmp_path / "run/final/adapter")
    state, named = last_tensors(tmp_path / "run"), dict(model.named_parameters())
    lora = {name.removeprefix("weight/"): tensor for name, tensor in state.items() if name.startswith("weight/")}
    assert {name for name in named if "lora_" in name} == set(lora)
    assert all(torch.equal(named[name], tensor) for name, tensor in lora.items())


def test_preflight_changes_nothing(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    config = runs.config(dataset, family.directory, tmp_path)
    trainer, micro_batches = runs.parts(config, family)
    expected = [runs.step(trainer, micro_batches, step).loss for step in range(3)]
    train(dataset, family, tmp_path / "run")
    assert losses(tmp_path / "run") == expected


def test_preflight_reaches_what_sees_though_the_heaviest_pack_is_text(
    checkpoint: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, seen = runs.rows(2)[1], runs.rows(1)[0]
    text["conversations"][0]["user"] *= 200
    with_images: list[bool] = []
    ours = trainer.Trainer.forward_backward

    def note(self: Any, batch: Any, *others: Any, **named: Any) -> Any:
        with_images.append(batch.get("pixel_values") is not None)
        return ours(self, batch, *others, **named)

    monkeypatch.setattr(trainer.Trainer, "forward_backward", note)
    for name, content, expected in (("text", [text, seen], [False, True]), ("image", [seen], [True])):
        data = runs.write_dataset(tmp_path / name, content)
        config = runs.config(data, checkpoint, tmp_path / "run", batch_size_per_gpu=1)
        found = memory.preflight(*runs.parts(config, family), family)
        assert found.rows == 1
        assert found.parts["vision"].with_gradient
        assert with_images[: len(expected)] == expected
        with_images.clear()


def test_a_part_without_gradient_is_found_before_the_first_step(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = trainable.load_for_training

    def with_a_loose_end(*arguments: Any) -> Any:
        model = load(*arguments)
        model.model.unused = torch.nn.Linear(2, 2)
        return model

    monkeypatch.setattr(trainable, "load_for_training", with_a_loose_end)
    with pytest.raises(ConvkitError, match=r"^2 of \d+ trainable tensors of the language part got no gradient"):
        train(dataset, family, tmp_path / "run")


def test_the_heaviest_pack_that_does_not_fit_is_named(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory. Tried to allocate")

    monkeypatch.setattr(trainer.Trainer, "forward_backward", full)
    with pytest.raises(ConvkitError, match=r"heaviest micro-batch, of [\d,]+ tokens \(rows 'r\d'.*Lower --max_tokens"):
        train(dataset, family, tmp_path / "run")


CHANGES: dict[str, dict[str, Any]] = {
    "--learning_rate 0.001 there, 0.002 here": {"learning_rate": 0.002},
    "--weight_decay 0.01 there, 0.0 here": {"weight_decay": 0.0},
    "--batch_size 4 there, 5 here.*; schedule '": {"batch_size": 5},
    "--use_lora False there, True here": {"use_lora": True},
}


@pytest.fixture(scope="module")
def finished(dataset: Path, family: Phi3VFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    train(dataset, family, out)
    return out


@pytest.mark.parametrize("message", CHANGES)
def test_a_changed_option_is_refused_by_name(dataset: Path, family: Phi3VFamily, finished: Path, message: str) -> None:
    with pytest.raises(ConvkitError, match=f"step-00000003 belongs to another run: .*{message}"):
        train(dataset, family, finished, resume="auto", **CHANGES[message])


def test_an_option_that_came_later_is_what_it_is_by_default(
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


def test_changed_data_and_models_are_refused_by_name(
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


def test_the_folder_of_an_evaluation_is_left_as_it_is(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(
        ConvkitError, match=r"holds evaluation\.json, of convkit evaluate\. Choose another --output_dir"
    ):
        train(dataset, family, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_run_is_never_overwritten_but_may_be_finished_twice(
    dataset: Path, family: Phi3VFamily, finished: Path
) -> None:
    before = losses(finished)
    with pytest.raises(ConvkitError, match=r"holds checkpoints of a run\. Add --resume auto"):
        train(dataset, family, finished)
    last = checkpoints.checkpoints(finished)[-1]
    for step in (1, 2):  # as a run leaves them that is killed before it removes them
        shutil.copytree(last, last.with_name(f"step-{step:08}"), dirs_exist_ok=True)
    said = train(dataset, family, finished, resume="auto", dataloader_num_workers=1)  # of no consequence
    assert "resuming after step 3 of 3" in said
    assert [path.name for path in checkpoints.checkpoints(finished)] == ["step-00000002", last.name]
    assert losses(finished) == before


def test_a_checkpoint_of_more_processes_is_gone_on_with_and_said_so(
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


def test_a_damaged_checkpoint_is_named(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "run")
    last = checkpoints.checkpoints(tmp_path / "run")[-1]
    content = (last / "state.safetensors").read_bytes()
    (last / "state.safetensors").write_bytes(content[:-100])
    with pytest.raises(ConvkitError, match=r"state\.safetensors cannot be read: .* Remove .*step-00000003"):
        train(dataset, family, tmp_path / "run", resume="auto")


@pytest.mark.parametrize("step", [-3, 99])
def test_a_state_of_another_step_is_refused(dataset: Path, family: Phi3VFamily, tmp_path: Path, step: int) -> None:
    train(dataset, family, tmp_path / "run")
    state = checkpoints.checkpoints(tmp_path / "run")[-1] / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_bytes()), "step": step}))
    with pytest.raises(
        ConvkitError,
        match=r"(it is the state of step 99|step: Input should be greater than or equal to 0)\. Remove .*step-00000003",
    ):
        train(dataset, family, tmp_path / "run", resume="auto")


def test_metrics_that_were_damaged_are_named(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "run")
    for damage in ("junk\n", "[1]\n", "{}\n"):
        (tmp_path / "run/metrics.jsonl").write_text(damage)
        with pytest.raises(ConvkitError, match=r"metrics\.jsonl:1 is not a line of metrics"):
            train(dataset, family, tmp_path / "run", resume="auto")


def test_a_full_disk_ends_in_words_and_leaves_nothing_half_written(
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


def test_a_run_that_is_asked_to_stop_saves_first(
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


def test_the_gate_says_how_it_is_opened(family: Phi3VFamily, tmp_path: Path) -> None:
    data = runs.write_dataset(tmp_path / "pets", validated=False)
    with pytest.raises(DatasetError, match=f"Run: convkit validate {data}"):
        train(data, family, tmp_path / "run")
    validate([data], workers=0)
    with pytest.raises(DatasetError, match=f"not validated for .*Run: convkit validate {data} --model {runs.PROFILE}"):
        train(data, family, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_trained_on_are_named(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match=r"_train\.jsonl:1: row 'r0' has 3\d\d tokens, more than --max_tokens 300"):
        train(dataset, family, tmp_path / "run", max_tokens=300)


def test_images_that_change_during_a_run_end_it_by_name(
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


def _lengths(dataset: Path, family: Phi3VFamily) -> list[int]:
    rows = [row for _, row in Dataset.open(dataset).rows("train")]
    return [family.length(row, dataset / "images").tokens for row in rows]


def test_rows_that_are_too_long_are_refused_or_counted_and_named(
    dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    limit = sorted(lengths := _lengths(dataset, family))[5]
    kept = [number for number, length in enumerate(lengths) if length <= limit]
    dropped = [number for number, length in enumerate(lengths) if length > limit]
    assert kept and dropped and kept != list(range(len(kept)))
    with pytest.raises(DatasetError, match=rf"row 'r{dropped[0]}' has .* more than --max_tokens.*--drop_overlong"):
        train(dataset, family, tmp_path / "refused", max_tokens=limit)
    out = tmp_path / "run"
    said = train(dataset, family, out, max_tokens=limit, drop_overlong=True)
    start = (
        f"10 rows = {len(kept)} to train on + {len(dropped)} dropped for more than {limit} tokens: 'r{dropped[0]}' ("
    )
    assert any(line.startswith(start) for line in said)
    assert said[-1].startswith(f"{len(kept)} rows planned = {len(kept)} trained")
    record = [json.loads(line) for line in (out / "dropped.jsonl").read_bytes().splitlines()]
    assert record == [{"line": n + 1, "id": f"r{n}", "tokens": lengths[n]} for n in dropped]
    assert json.loads((out / "config.json").read_bytes())["drop_overlong"] is True
    shorter = [json.loads(line) for line in (dataset / "pets_train.jsonl").read_bytes().splitlines()]
    alone = runs.write_dataset(tmp_path / "kept", [shorter[number] for number in kept])
    train(alone, family, tmp_path / "alone", max_tokens=limit)
    assert losses(out) == losses(tmp_path / "alone")  # those that stay are read from their own places


def test_where_nothing_stays_it_says_so(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="all of its 10 rows have more tokens than --max_tokens 3"):
        train(dataset, family, tmp_path / "run", max_tokens=3, drop_overlong=True)


def test_dropping_nothing_leaves_no_file(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    said = train(dataset, family, tmp_path / "run", drop_overlong=True)
    assert "dropped" not in " ".join(said)
    assert not (tmp_path / "run/dropped.jsonl").exists()

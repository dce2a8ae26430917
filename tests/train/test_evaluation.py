"""Evaluation during training: when it runs, its results, and that it does not change the training."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import ConvkitError
from convkit.train.checkpoint.store import checkpoints
from convkit.train.evaluate import run as evaluation
from convkit.train.evaluate.generate import Generator
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.metrics import log
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.trainer import Stopped
from tests.train.helpers import runs
from tests.train.helpers.runs import train

STEPS = 3
EVALUATED = {"eval_split": "train", "eval_max_new_tokens": 4, "eval_batch_size": 4, "learning_rate": 0.01}


def evaluations(out: Path) -> dict[str, bytes]:
    found = {path.parent.name: path.read_bytes() for path in out.glob("evaluations/*/predictions.jsonl")}
    assert all((out / "evaluations" / name / "scores.json").exists() for name in found)
    return found


def measured(out: Path) -> list[Any]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


@pytest.mark.parametrize("method", [{}, {"use_lora": True}, {"gradient_checkpointing": "all", "bf16": True}])
def test_evaluations_run_before_between_and_after_without_changing_the_losses(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, method: dict[str, Any]
) -> None:
    log_lines = train(dataset, family, tmp_path / "run", **EVALUATED, **method, eval_steps=2)
    found = evaluations(tmp_path / "run")
    assert sorted(found) == [f"step-{step:08}" for step in (0, 2, STEPS)]
    assert all(content.count(b"\n") == runs.ROWS for content in found.values())
    assert len(set(found.values())) > 1  # the model has changed
    steps = [line.split(":")[0] for line in log_lines if line.startswith("after step")]
    assert steps == [f"after step {step} of {STEPS}" for step in (0, 2, STEPS)]
    train(dataset, family, tmp_path / "plain", learning_rate=0.01, **method)
    assert measured(tmp_path / "run") == measured(tmp_path / "plain")


@pytest.mark.parametrize("stopped", [0, 2, STEPS])
def test_sigterm_during_an_evaluation_saves_and_repeats_it_after_resuming(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    options: dict[str, Any] = {**EVALUATED, "eval_steps": 2, "resume": "auto"}
    answer, folder = Generator.__call__, tmp_path / f"run/evaluations/step-{stopped:08}"

    def asked(self: Generator, batch: Any) -> Any:
        if folder.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(self, batch)

    monkeypatch.setattr(Generator, "__call__", asked)
    with pytest.raises(
        Stopped, match=rf"in the evaluation after step {stopped} of {STEPS}\. Resume with --resume auto"
    ):
        train(dataset, family, tmp_path / "run", **options)
    assert (folder / "predictions.jsonl").read_bytes().count(b"\n") == EVALUATED["eval_batch_size"]
    saved = [int(path.name.removeprefix("step-")) for path in checkpoints(tmp_path / "run")]
    assert saved == ([stopped] if stopped else [])
    monkeypatch.undo()
    train(dataset, family, tmp_path / "run", **options)
    train(dataset, family, tmp_path / "other", **options)
    assert evaluations(tmp_path / "run") == evaluations(tmp_path / "other")
    assert measured(tmp_path / "run") == measured(tmp_path / "other")


@pytest.mark.parametrize("use_lora", [False, True])
def test_results_equal_those_of_convkit_evaluate(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, use_lora: bool
) -> None:
    train(dataset, family, tmp_path / "run", **EVALUATED, use_lora=use_lora)
    final = tmp_path / "run/final"
    trained = {"adapter": final / "adapter", "model": family.directory} if use_lora else {"model": final / "model"}
    asked = {"data_dir": dataset, "split": "train", "max_new_tokens": 4, "batch_size": 4, "num_crops": 1}
    for step, weights in ((0, {"model": family.directory}), (STEPS, trained)):
        chosen: dict[str, Any] = {**asked, **weights, "output_dir": tmp_path / f"after{step}"}
        predictions = evaluation.evaluate(EvaluateOptions(**chosen), runs.ONE)
        assert predictions.read_bytes() == evaluations(tmp_path / "run")[f"step-{step:08}"]


def test_an_interrupted_evaluation_is_repeated(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**EVALUATED, "eval_steps": 1, "save_steps": 1}
    train(dataset, family, tmp_path / "whole", **options)
    answer, calls = Generator.__call__, list(range(8))  # of three a step

    def failing(self: Generator, batch: dict[str, Any]) -> Any:
        if not calls:
            raise ConvkitError("cut off")
        calls.pop()
        return answer(self, batch)

    with monkeypatch.context() as patched, pytest.raises(ConvkitError, match="cut off"):
        patched.setattr(Generator, "__call__", failing)
        train(dataset, family, tmp_path / "cut", **options)
    folders = sorted((tmp_path / "cut/evaluations").iterdir())
    assert [(folder / "scores.json").exists() for folder in folders] == [True, True, False]
    assert (folders[-1] / "predictions.jsonl").stat().st_size
    log_lines = train(dataset, family, tmp_path / "cut", **options, resume="auto")
    assert [line.split(" of")[0] for line in log_lines if "after step" in line][1:] == ["after step 2", "after step 3"]
    assert evaluations(tmp_path / "cut") == evaluations(tmp_path / "whole")


def test_evaluations_after_the_checkpoint_are_repeated(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    options = {**EVALUATED, "eval_steps": 1, "save_steps": 1, "save_total_limit": 9}
    train(dataset, family, tmp_path / "run", **options)
    whole = evaluations(tmp_path / "run")
    for name in ("step-00000002", "step-00000003"):
        (tmp_path / "run/evaluations" / name / "predictions.jsonl").write_bytes(b"of other weights\n")
        folder = tmp_path / "run/checkpoints" / name
        for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
            path.rmdir() if path.is_dir() else path.unlink()
    train(dataset, family, tmp_path / "run", **options, resume="auto")
    assert evaluations(tmp_path / "run") == whole


def test_a_new_run_removes_old_evaluations(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    folder = tmp_path / "run/evaluations/step-00000000"
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_bytes(b"of another model, killed before its first checkpoint\n")
    (folder / "scores.json").write_bytes(b"{}")
    train(dataset, family, tmp_path / "run", **EVALUATED)
    assert evaluations(tmp_path / "run")[folder.name].count(b"\n") == runs.ROWS


def test_eval_limit_evaluates_only_the_first_rows(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    train(dataset, family, tmp_path / "run", **EVALUATED, eval_limit=3)
    assert {content.count(b"\n") for content in evaluations(tmp_path / "run").values()} == {3}


def test_scores_are_sent_to_the_trackers(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(log.MetricsLog, "evaluation", lambda self, step, values: seen.append((step, values)))
    train(dataset, family, tmp_path / "run", **EVALUATED)
    assert [step for step, _ in seen] == [0, STEPS]
    assert all(list(values) == ["eval/pets/accuracy"] for _, values in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_steps": 5}, "Add --eval_split val"),
        ({"eval_split": "train", "fsdp": True}, "--eval_split cannot be combined with --fsdp"),
        ({"eval_split": "train", "deepspeed": "zero3"}, "--eval_split cannot be combined with --deepspeed zero3"),
        ({"eval_split": "test"}, "has no split 'test'"),
    ],
)
def test_options_that_prevent_evaluation_are_refused_before_loading(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvkitError, match=message):
        train(dataset, family, tmp_path / "run", **options)
    assert not (tmp_path / "run/checkpoints").exists()

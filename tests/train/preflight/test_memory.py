"""The preflight: it changes nothing, and finds missing gradients and too little memory before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from convkit.errors import ConvkitError
from convkit.train import trainer
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.preflight import memory
from convkit.train.setup import trainable
from tests.train.helpers import runs
from tests.train.helpers.runs import losses, train


def test_preflight_does_not_change_the_training(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    config = runs.config(dataset, family.directory, tmp_path)
    trainer, micro_batches = runs.parts(config, family)
    expected = [runs.step(trainer, micro_batches, step).loss for step in range(3)]
    train(dataset, family, tmp_path / "run")
    assert losses(tmp_path / "run") == expected


def test_preflight_checks_the_vision_tower_if_the_heaviest_micro_batch_is_text(
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


def test_a_part_without_gradients_is_an_error_before_the_first_step(
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


def test_the_rows_of_a_heaviest_micro_batch_that_does_not_fit_are_named(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory. Tried to allocate")

    monkeypatch.setattr(trainer.Trainer, "forward_backward", full)
    with pytest.raises(ConvkitError, match=r"heaviest micro-batch, of [\d,]+ tokens \(rows 'r\d'.*Lower --max_tokens"):
        train(dataset, family, tmp_path / "run")

"""The loss and the last layer of Phi-3.5-vision at supervised positions only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convkit.train.models.phi3_v import loss as losses
from convkit.train.models.phi3_v.family import Phi3VFamily
from tests.train.helpers import runs
from tests.train.helpers.gradients import assert_same_gradients


@pytest.mark.parametrize("method", [{}, {"use_lora": True}, {"use_lora": True, "gradient_checkpointing": "all"}])
def test_the_loss_at_supervised_positions_equals_the_loss_at_all_positions(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    runs.stir(trainer.sharding.model)
    batch = packs.batch((0, 1, 2, 4))
    assert len(batch["logits_to_keep"]) == int((batch["labels"][0, 1:] != -100).sum()) > 4
    ours = runs.gradients(trainer, batch)
    monkeypatch.setattr(losses, "_CHUNK_SIZE", 3)
    in_chunks = runs.gradients(trainer, batch)
    del batch["logits_to_keep"]
    at_all_positions = runs.gradients(trainer, batch)
    assert_same_gradients(ours, at_all_positions)
    assert_same_gradients(in_chunks, at_all_positions)


@pytest.mark.parametrize("checkpointing", ["none", "all"])
def test_the_last_layer_computes_only_supervised_positions(
    dataset: Path, family: Phi3VFamily, checkpointing: str
) -> None:
    trainer, packs = runs.parts(
        runs.config(dataset, family.directory, dataset, gradient_checkpointing=checkpointing), family
    )
    batch, seen = packs.batch((0, 1, 2, 4)), []
    for layer in trainer.sharding.model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    tokens, supervised = batch["labels"].shape[1], len(batch["logits_to_keep"])
    runs.gradients(trainer, batch)
    assert seen == [tokens, supervised] + ([supervised, tokens] if checkpointing == "all" else [])
    seen.clear()
    del batch["logits_to_keep"]
    trainer.forward(batch, 1)
    assert seen == [tokens, tokens]


def test_loss_positions_need_a_single_sequence() -> None:
    hidden, labels = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="one sequence, not 2: leave logits_to_keep out"):
        losses.cross_entropy_at(hidden, labels, torch.tensor([0]), nn.Linear(4, 5), None)


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"optim": "adamw_bf16", "bf16": True},
        {"use_lora": True, "gradient_checkpointing": "all"},
        {"use_lora": True, "lora_dropout": 0.1, "bf16": True},
        {"use_qlora": True, "bf16": True},
        {"use_qlora": True, "lora_dropout": 0.1},
    ],
)
def test_a_pack_without_supervised_tokens_has_zero_loss_and_gradients(
    dataset: Path, family: Phi3VFamily, method: dict[str, Any]
) -> None:
    if "use_qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, **method), family)
    batch = packs.batch((0,))
    batch |= {"labels": torch.full_like(batch["labels"], -100), "logits_to_keep": torch.zeros(0, dtype=torch.long)}
    trained = {name for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}
    loss, found = runs.gradients(trainer, batch)
    assert loss == 0
    assert found.keys() == trained and not any(gradient.any() for gradient in found.values())

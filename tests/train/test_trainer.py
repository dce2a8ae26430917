"""One training step: results do not depend on packing, and each method trains the right parameters."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from convkit.errors import ConvkitError
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.adamw import BETAS, EPS, learning_rate
from convkit.train.setup.trainable import unwrapped_name
from convkit.train.trainer import Trainer
from tests.train.helpers import runs

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": {"use_lora": True},
    "lora frozen": {"use_lora": True, "freeze_vision_model": True},
    "lora, vision in full": {"use_lora": True, "full_vision_model": True},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_dataset(tmp_path_factory.mktemp("data") / "pets", validated=False)


def gradients(dataset: Path, family: Phi3VFamily, **options: Any) -> tuple[int, float, dict[str, torch.Tensor]]:
    """Return micro-batches, loss and gradients of the first global batch."""
    trainer, micro_batches = runs.parts(runs.config(dataset, family.directory, dataset, **options), family)
    chosen = trainer.schedule.micro_batches(0)
    losses = trainer.backward(0, chosen, map(micro_batches.batch, chosen))
    named = {name: p.grad for name, p in trainer.sharding.model.named_parameters() if p.grad is not None}
    return len(chosen), float(losses.sum()), named


@pytest.mark.parametrize("method", ["full", "lora"])
def test_packing_and_accumulation_do_not_change_the_gradient(dataset: Path, family: Phi3VFamily, method: str) -> None:
    layouts: list[dict[str, Any]] = [
        {"max_tokens": 8192},
        {"max_tokens": 400},
        {"batch_size_per_gpu": 1},
        {"gradient_checkpointing": "all"},
    ]
    found = [gradients(dataset, family, **layout, **METHODS[method]) for layout in layouts]
    assert [count for count, _, _ in found] == [1, 2, 4, 1]
    _, loss, expected = found[0]
    for _, other_loss, other in found[1:]:
        assert other_loss == pytest.approx(loss, abs=1e-6)
        assert other.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_packing_and_accumulation_do_not_change_losses_and_weights(
    dataset: Path, family: Phi3VFamily, method: str
) -> None:
    found = []
    for layout in ({}, {"max_tokens": 400}, {"batch_size_per_gpu": 1}):
        config = runs.config(dataset, family.directory, dataset, num_train_epochs=2, **layout, **METHODS[method])
        trainer, micro_batches = runs.parts(config, family)
        steps = range(trainer.schedule.steps)
        losses = [runs.step(trainer, micro_batches, step).loss for step in steps]
        found.append((losses, dict(trainer.sharding.model.named_parameters())))
    losses, weights = found[0]
    for other_losses, other in found[1:]:
        assert other_losses == pytest.approx(losses, abs=1e-6)
        for name, weight in weights.items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_the_method_selects_the_trained_parameters(dataset: Path, family: Phi3VFamily, method: str) -> None:
    trainer, _ = runs.parts(runs.config(dataset, family.directory, dataset, **METHODS[method]), family)
    names = {unwrapped_name(n) for n, p in trainer.sharding.model.named_parameters() if p.requires_grad}
    sees = {name for name in names if name.startswith("model.vision_embed_tokens")}
    assert bool(sees) == ("frozen" not in method)
    assert all("lora_" in name for name in names - (sees if "in full" in method else set())) == ("lora" in method)
    assert "full" not in method or not any("lora_" in name for name in sees)
    assert not any("encoder.layers.3." in name for name in names)  # the last one is never run
    if method == "lora":
        for part in ("lm_head", "layers.1.mlp.gate_up_proj", "layers.2.mlp.fc1", "img_projection.2"):
            assert any(f"{part}.lora_A" in name for name in names)


def test_losses_equal_those_of_a_plain_training_loop(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, batch_size=1, num_train_epochs=2)
    trainer, micro_batches = runs.parts(config, family)
    ours = [runs.step(trainer, micro_batches, step).loss for step in range(trainer.schedule.steps)]

    model = family.load(torch.float32).train()
    decayed = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=BETAS, eps=EPS)
    theirs = []
    for step in range(20):
        (number,) = trainer.schedule.batch(step)
        sample = family.encode(trainer.index.row(number), dataset / "images")
        logits = model(input_ids=sample.input_ids[None], **sample.image_inputs).logits[0]
        loss = F.cross_entropy(logits[:-1], sample.labels[1:])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if step == 0 else 1e-3 * (20 - step) / 19
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(loss.item())
    assert len(ours) == 20
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[-1] < ours[1]


def test_trained_weights_stay_in_float32_with_bf16(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, bf16=True, freeze_vision_model=True)
    trainer, micro_batches = runs.parts(config, family)
    for module in trainer.sharding.model.modules():
        for parameter in module.parameters(recurse=False):
            narrow = isinstance(module, torch.nn.Linear) and not parameter.requires_grad
            assert parameter.dtype is (torch.bfloat16 if narrow else torch.float32)
    plain, _ = runs.parts(runs.config(dataset, family.directory, dataset), family)
    ours = runs.step(trainer, micro_batches, 0)
    exact = runs.step(plain, micro_batches, 0)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.02)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_rows(
    dataset: Path, family: Phi3VFamily
) -> None:
    config = runs.config(dataset, family.directory, dataset, batch_size_per_gpu=1)
    trainer, micro_batches = runs.parts(config, family)
    before = {name: p.clone() for name, p in trainer.sharding.model.named_parameters()}
    chosen = trainer.schedule.micro_batches(0)
    guilty = trainer.index.row(chosen[2][0]).id

    def spoilt() -> Any:
        for number, batch in enumerate(map(micro_batches.batch, chosen)):
            if number == 2:
                batch["position_ids"] = batch["position_ids"].double() * float("inf")
            yield batch

    with pytest.raises(ConvkitError, match=rf"loss of step 1 is not a number; its rows: '{guilty}'\. Nothing was up"):
        trainer.step(0, spoilt())
    assert all(torch.equal(p, before[name]) for name, p in trainer.sharding.model.named_parameters())


@pytest.mark.parametrize(
    ("options", "expected", "absent"),
    [
        (
            {},
            "--optim adamw_bf16, shard the model with --deepspeed zero2 or --fsdp, or train LoRA adapters",
            "checkpointing all",
        ),
        (
            {"bf16": True, "optim": "adamw_bf16", "gradient_checkpointing": "auto"},
            "--gradient_checkpointing all, shard",
            "adamw_bf16",
        ),
        (
            {"gradient_checkpointing": "none"},
            "recompute activations with --gradient_checkpointing auto, keep smaller",
            "checkpointing all",
        ),
        (
            {"use_lora": True},
            "Lower --max_tokens or --num_crops, or keep frozen weights in 4 bits with --use_qlora.",
            "fsdp",
        ),
        ({"use_qlora": True}, "Lower --max_tokens or --num_crops.", "qlora"),
        ({"fsdp": True}, "Lower --max_tokens or --num_crops, or train LoRA adapters with --use_lora.", "adamw_bf16"),
    ],
)
def test_out_of_memory_suggests_options_that_are_not_in_use_yet(
    dataset: Path, family: Phi3VFamily, options: dict[str, Any], expected: str, absent: str
) -> None:
    config = runs.config(dataset, family.directory, dataset, **{"gradient_checkpointing": "all", **options})
    plain, _ = runs.parts(runs.config(dataset, family.directory, dataset), family)
    trainer = Trainer(plain.sharding, plain.schedule, plain.index, config, runs.ONE)
    answer = str(trainer.out_of_memory("Micro-batch 1", (0,), torch.OutOfMemoryError("CUDA out of memory.")))
    assert expected in answer and absent not in answer.split("CUDA out of memory.")[1]


def test_the_learning_rate_warms_up_and_decays(dataset: Path) -> None:
    config = runs.config(dataset, dataset, dataset, warmup_steps=4, learning_rate=8.0)
    assert [learning_rate(step, 8, config) for step in range(8)] == [0, 2, 4, 6, 8, 6, 4, 2]

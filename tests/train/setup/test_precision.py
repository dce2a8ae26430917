"""float16 loss scaling and QLoRA: dtypes of weights, skipped steps, and errors for missing packages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convkit.errors import ConvkitError
from convkit.train import run
from convkit.train.checkpoint import store as checkpoints
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.sharding.replicated import Replicated
from convkit.train.preflight import memory
from convkit.train.setup import precision, requirements
from convkit.train.setup.trainable import unwrapped_name
from tests.train.helpers import runs


def test_in_float16_the_residual_stream_stays_in_float32(dataset: Path, family: Phi3VFamily) -> None:
    trainer, ours = runs.first_step(dataset, family, fp16=True, use_lora=True)
    for name, parameter in trainer.sharding.model.named_parameters():
        matrix = "_proj" in name or ".fc" in name or "lm_head" in name or "img_projection" in name
        frozen = torch.float16 if matrix else torch.float32
        if "norm" not in name:
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else frozen), name
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.01)
    assert ours.grad_norm == pytest.approx(exact.grad_norm, rel=0.05)  # unscaled
    assert not ours.skipped


def test_a_step_with_overflowing_gradients_is_skipped(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, fp16=True)
    trainer, packs = runs.parts(config, family)
    before = {name: p.clone() for name, p in trainer.sharding.model.named_parameters()}
    usual = trainer.sharding.scale.state()
    trainer.sharding.scale.load_state({**usual, "scale": 2.0**40})
    outcome = trainer.step(0, map(packs.batch, trainer.schedule.micro_batches(0)))
    assert outcome.skipped
    assert trainer.sharding.scale.state() == {**usual, "scale": 2.0**39, "skipped": 1}
    assert all(torch.equal(p, before[name]) for name, p in trainer.sharding.model.named_parameters())
    assert isinstance(trainer.sharding, Replicated)
    assert not trainer.sharding.optimizer.state


def test_preflight_runs_steps_until_the_loss_scale_is_low_enough(dataset: Path, family: Phi3VFamily) -> None:
    """A skipped step allocates no moments, so its peak memory would be too low."""
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, fp16=True), family)
    trainer.sharding.scale.load_state({**trainer.sharding.scale.state(), "scale": 2.0**30})
    memory._update(trainer, packs, (1,))
    assert trainer.sharding.scale.skipped
    assert isinstance(trainer.sharding, Replicated) and trainer.sharding.optimizer.state


def test_gradients_that_overflow_at_any_scale_are_an_error(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, fp16=True)
    trainer, packs = runs.parts(config, family)
    trainer.sharding.scale.load_state({**trainer.sharding.scale.state(), "scale": 1.0})
    next(p for p in trainer.sharding.model.parameters() if p.requires_grad).register_hook(
        lambda gradient: gradient * float("inf")
    )
    with pytest.raises(ConvkitError, match=r"do not fit float16 at any scale\. Nothing was updated\..*--bf16"):
        trainer.step(0, map(packs.batch, trainer.schedule.micro_batches(0)))


def test_skipped_steps_are_reported_and_survive_a_resume(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscale = precision.LossScaler.unscale
    steps = iter(range(100))

    def unscale_with_overflow(self: precision.LossScaler, optimizer: torch.optim.Optimizer) -> None:
        if next(steps) == 2:  # after the steps of preflight
            optimizer.param_groups[0]["params"][0].grad.fill_(float("inf"))
        unscale(self, optimizer)

    monkeypatch.setattr(precision.LossScaler, "unscale", unscale_with_overflow)
    config = runs.config(dataset, family.directory, tmp_path / "run", fp16=True, use_lora=True, save_steps=1)
    messages: list[str] = []
    run.train(config, family, runs.ONE, log=messages.append)
    assert messages[-2] == "1 of 3 steps were skipped: their gradients overflowed float16"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped") for line in lines] == [True, None, None]
    assert lines[0]["grad_norm"] is None
    state = json.loads((checkpoints.checkpoints(tmp_path / "run")[-1] / "state.json").read_bytes())
    assert state["loss_scale"]["scale"] == 2.0**15
    resumed: list[str] = []
    again = runs.config(dataset, family.directory, tmp_path / "run", fp16=True, use_lora=True, resume="auto")
    run.train(again, family, runs.ONE, log=resumed.append)
    assert resumed[-2] == messages[-2]


def test_qlora_trains_adapters_on_4_bit_weights(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, ours = runs.first_step(dataset, family, use_qlora=True, bf16=True)
    model = trainer.sharding.model
    packed = {unwrapped_name(name) for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert "model.layers.0.self_attn.qkv_proj.base_layer" in packed
    assert not any("lm_head" in name for name in packed)
    assert {p.dtype for n, p in model.named_parameters() if "qkv_proj.base_layer" in n} == {torch.uint8}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in model.named_parameters() if p.requires_grad)
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.05)

    messages: list[str] = []
    config = runs.config(dataset, family.directory, tmp_path / "run", use_qlora=True, bf16=True)
    run.train(config, family, runs.ONE, log=messages.append)
    assert messages[0].startswith("QLoRA: ")
    total = sum(p.numel() for p in family.load(torch.float32).parameters())
    counted = sum(int(line.split(": ")[1].split(" ")[0].replace(",", "")) for line in messages[2:5])
    assert counted == total + sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )  # two 4-bit weights per byte count as two
    step = checkpoints.checkpoints(tmp_path / "run")[-1]
    assert sorted(path.name for path in step.iterdir()) == ["adapter", "state.json", "state.safetensors"]
    assert all("lora_" in name for name in load_file(step / "state.safetensors"))


def test_qlora_does_not_quantize_a_fully_trained_vision_tower(dataset: Path, family: Phi3VFamily) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, _ = runs.first_step(dataset, family, use_qlora=True, full_vision_model=True, bf16=True)
    model = trainer.sharding.model
    packed = {unwrapped_name(name) for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert packed
    assert not any(name.startswith(family.vision_modules) for name in packed)
    trained = {unwrapped_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for name, p in trained.items() if name.startswith(family.vision_modules)} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_qlora": True}, r"--use_qlora needs the package bitsandbytes.*pip install 'convkit-vlm\[qlora\]'"),
        ({"deepspeed": "zero2"}, r"--deepspeed zero2 needs the package deepspeed.*'convkit-vlm\[deepspeed\]'"),
        ({"use_flash_attention": True}, "--use_flash_attention needs the package flash-attn.* Leave the option out"),
    ],
)
def test_missing_packages_are_reported_before_anything_is_read(
    family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(ConvkitError, match=message):
        run.train(runs.config(tmp_path / "no data", family.directory, tmp_path, **options), family, runs.ONE)


def test_a_broken_bitsandbytes_is_an_error_with_a_remedy(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel\nimage is available")

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", broken)
    with pytest.raises(
        ConvkitError, match=r"does not work on this machine's .*: no kernel image .* or train with --use_lora"
    ):
        runs.first_step(dataset, family, use_qlora=True)

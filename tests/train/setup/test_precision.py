"""float16 and weights of 4 bits: what is kept in which type, which steps are skipped, what is said without them."""

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
from convkit.train.optim.sharding.replicated import Plain
from convkit.train.preflight import memory
from convkit.train.setup import precision, requirements
from convkit.train.setup.trainable import own_name
from tests.train.helpers import runs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_dataset(tmp_path_factory.mktemp("data") / "pets")


def test_in_float16_sums_between_layers_stay_in_float32(dataset: Path, family: Phi3VFamily) -> None:
    trainer, ours = runs.first_step(dataset, family, fp16=True, use_lora=True)
    for name, parameter in trainer.sharding.model.named_parameters():
        matrix = "_proj" in name or ".fc" in name or "lm_head" in name or "img_projection" in name
        frozen = torch.float16 if matrix else torch.float32
        if "norm" not in name:
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else frozen), name
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.01)
    assert ours.grad_norm == pytest.approx(exact.grad_norm, rel=0.05)  # without the scale
    assert not ours.skipped


def test_a_step_whose_gradients_exceed_float16_is_skipped(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, fp16=True)
    trainer, packs = runs.parts(config, family)
    before = {name: p.clone() for name, p in trainer.sharding.model.named_parameters()}
    usual = trainer.sharding.scale.state()
    trainer.sharding.scale.load({**usual, "scale": 2.0**40})
    outcome = trainer.step(0, map(packs.batch, trainer.schedule.micro_batches(0)))
    assert outcome.skipped
    assert trainer.sharding.scale.state() == {**usual, "scale": 2.0**39, "skipped": 1}
    assert all(torch.equal(p, before[name]) for name, p in trainer.sharding.model.named_parameters())
    assert isinstance(trainer.sharding, Plain)
    assert not trainer.sharding.optimizer.state


def test_preflight_steps_until_the_scale_is_low_enough(dataset: Path, family: Phi3VFamily) -> None:
    """A step that is skipped needs no moments: what is measured of it would leave no room for them."""
    trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, fp16=True), family)
    trainer.sharding.scale.load({**trainer.sharding.scale.state(), "scale": 2.0**30})
    memory._update(trainer, packs, (1,))
    assert trainer.sharding.scale.skipped
    assert isinstance(trainer.sharding, Plain) and trainer.sharding.optimizer.state


def test_gradients_that_fit_at_no_scale_end_it(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, fp16=True)
    trainer, packs = runs.parts(config, family)
    trainer.sharding.scale.load({**trainer.sharding.scale.state(), "scale": 1.0})
    next(p for p in trainer.sharding.model.parameters() if p.requires_grad).register_hook(
        lambda gradient: gradient * float("inf")
    )
    with pytest.raises(ConvkitError, match=r"do not fit float16 at any scale\. Nothing was updated\..*--bf16"):
        trainer.step(0, map(packs.batch, trainer.schedule.micro_batches(0)))


def test_skipped_steps_are_said_and_kept_through_a_resumption(
    dataset: Path, family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unscale = precision.LossScale.unscale
    steps = iter(range(100))

    def spoilt(self: precision.LossScale, optimizer: torch.optim.Optimizer) -> None:
        if next(steps) == 2:  # after those of preflight
            optimizer.param_groups[0]["params"][0].grad.fill_(float("inf"))
        unscale(self, optimizer)

    monkeypatch.setattr(precision.LossScale, "unscale", spoilt)
    config = runs.config(dataset, family.directory, tmp_path / "run", fp16=True, use_lora=True, save_steps=1)
    said: list[str] = []
    run.train(config, family, runs.ONE, say=said.append)
    assert said[-2] == "1 of 3 steps were skipped: their gradients exceeded float16"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped") for line in lines] == [True, None, None]
    assert lines[0]["grad_norm"] is None
    state = json.loads((checkpoints.checkpoints(tmp_path / "run")[-1] / "state.json").read_bytes())
    assert state["loss_scale"]["scale"] == 2.0**15
    resumed: list[str] = []
    again = runs.config(dataset, family.directory, tmp_path / "run", fp16=True, use_lora=True, resume="auto")
    run.train(again, family, runs.ONE, say=resumed.append)
    assert resumed[-2] == said[-2]


def test_qlora_trains_adapters_on_weights_of_four_bits(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, ours = runs.first_step(dataset, family, use_qlora=True, bf16=True)
    model = trainer.sharding.model
    packed = {own_name(name) for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert "model.layers.0.self_attn.qkv_proj.base_layer" in packed
    assert not any("lm_head" in name for name in packed)
    assert {p.dtype for n, p in model.named_parameters() if "qkv_proj.base_layer" in n} == {torch.uint8}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in model.named_parameters() if p.requires_grad)
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.05)

    said: list[str] = []
    config = runs.config(dataset, family.directory, tmp_path / "run", use_qlora=True, bf16=True)
    run.train(config, family, runs.ONE, say=said.append)
    assert said[0].startswith("QLoRA: ")
    total = sum(p.numel() for p in family.load(torch.float32).parameters())
    counted = sum(int(line.split(": ")[1].split(" ")[0].replace(",", "")) for line in said[2:5])
    assert counted == total + sum(p.numel() for p in model.parameters() if p.requires_grad)  # two in a byte are two
    step = checkpoints.checkpoints(tmp_path / "run")[-1]
    assert sorted(path.name for path in step.iterdir()) == ["adapter", "state.json", "state.safetensors"]
    assert all("lora_" in name for name in load_file(step / "state.safetensors"))


def test_qlora_leaves_a_tower_that_is_trained_in_full_as_it_is(dataset: Path, family: Phi3VFamily) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    trainer, _ = runs.first_step(dataset, family, use_qlora=True, full_vision_model=True, bf16=True)
    model = trainer.sharding.model
    packed = {own_name(name) for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert packed
    assert not any(name.startswith(family.vision_modules) for name in packed)
    trained = {own_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for name, p in trained.items() if name.startswith(family.vision_modules)} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_qlora": True}, r"--use_qlora needs the package bitsandbytes.*pip install 'convkit-vlm\[qlora\]'"),
        ({"deepspeed": "zero2"}, r"--deepspeed zero2 needs the package deepspeed.*'convkit-vlm\[deepspeed\]'"),
        ({"use_flash_attention": True}, "--use_flash_attention needs the package flash-attn.* Leave the option out"),
    ],
)
def test_what_is_not_installed_is_missed_before_anything_is_read(
    family: Phi3VFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(ConvkitError, match=message):
        run.train(runs.config(tmp_path / "no data", family.directory, tmp_path, **options), family, runs.ONE)


def test_where_bitsandbytes_does_not_work_it_is_said(
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

"""Fused LoRA layers: the same results as peft, and a shared input in CLIP attention."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention

from convkit.train.models.kernels import lora
from convkit.train.models.kernels.lora import Fused, SharedAttention
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup import trainable
from tests.train.helpers import runs
from tests.train.helpers.gradients import assert_same_gradients, saved_tensors


def count_lora_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many layers share the input, for each call of the fused operator."""
    calls: list[int] = []
    ours = lora._lora

    def count(x: Tensor, frozen: Any, biases: Any, narrow: Tensor, wides: list[Tensor], scalings: Any) -> Any:
        calls.append(len(wides))
        return ours(x, frozen, biases, narrow, wides, scalings)

    monkeypatch.setattr(lora, "_lora", count)
    return calls


@pytest.mark.parametrize(
    "method", [{"use_lora": True}, {"use_lora": True, "gradient_checkpointing": "all"}, {"use_qlora": True}]
)
def test_fused_lora_computes_the_same_as_peft(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    if "use_qlora" in method:
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    config = runs.config(dataset, family.directory, dataset, **method)
    trainer, packs = runs.parts(config, family)
    model = trainer.sharding.model
    runs.stir(model)
    fused = [module for module in model.modules() if isinstance(module, Fused)]
    assert len(fused) == 2 * 4 + 4 * 6 + 2 + 1 - 6  # language model, used CLIP layers, projector
    calls = count_lora_calls(monkeypatch)
    ours = runs.gradients(trainer, packs.batch((0, 1, 2)))
    in_layers, outside, times = 2 * 4 + 3 * 3, 2 + 1, 2 if "gradient_checkpointing" in method else 1
    assert (calls.count(3), calls.count(1)) == (3 * times, in_layers * times + outside)
    calls.clear()
    lora.unfuse_lora(model)
    assert not [module for module in model.modules() if isinstance(module, Fused | SharedAttention)]
    assert_same_gradients(ours, runs.gradients(trainer, packs.batch((0, 1, 2))))
    assert not calls


def test_lora_with_dropout_is_not_fused(dataset: Path, family: Phi3VFamily) -> None:
    config = runs.config(dataset, family.directory, dataset, use_lora=True, lora_dropout=0.1)
    model = trainable.load_for_training(family, config)
    assert not [module for module in model.modules() if isinstance(module, Fused | SharedAttention)]


def attention_with_lora(*left_out: str) -> Any:
    """Return CLIP's attention with nonzero peft adapters of different ranks and scales."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(hidden_size=16, num_attention_heads=2, attn_implementation="sdpa")
    model = nn.ModuleDict({"attention": CLIPAttention(config)}).requires_grad_(False)
    targets = sorted({"q_proj", "k_proj", "v_proj", "out_proj"} - {*left_out})
    ranks = {name: 5 for name in targets if name == "k_proj"}
    inject_adapter_in_model(
        LoraConfig(r=3, lora_alpha=5, rank_pattern=ranks, target_modules=targets, init_lora_weights=False), model
    )
    return model["attention"]


@pytest.mark.parametrize("input_wanted", [True, False])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.1)])
def test_layers_with_a_shared_input_compute_the_same_as_separate_layers(
    input_wanted: bool, half: bool, tolerance: float
) -> None:
    module, x = attention_with_lora(), torch.randn(2, 5, 16, requires_grad=input_wanted)
    layers, turned = [module.q_proj, module.k_proj, module.v_proj], torch.randn(2, 16, 5)

    def computed(attend: Any) -> tuple[list[Tensor], dict[str, Tensor | None]]:
        """Return outputs and gradients, with unused keys, and gradients in another memory layout than the outputs."""
        leaves = {name: p for name, p in [*module.named_parameters(), ("input", x)] if p.requires_grad}
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = attend()
            loss = (outputs[0].transpose(1, 2) * turned).sum() + outputs[2].sum()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return outputs, dict(zip(leaves, found, strict=True))

    theirs = computed(lambda: [layer(x) for layer in layers])
    lora.fuse_lora(module)
    ours = computed(lambda: lora._lora_forward(layers, x))
    assert ("input" in ours[1]) == input_wanted
    for mine, other in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)
    for name, gradient in theirs[1].items():
        found = ours[1][name]
        if "k_proj" in name:
            assert gradient is None and found is not None and not found.any()
        else:
            torch.testing.assert_close(found, gradient, rtol=tolerance, atol=tolerance, msg=name)


def test_only_the_input_and_its_projections_are_saved_for_backward() -> None:
    module, x = attention_with_lora(), torch.randn(2, 5, 16)
    lora.fuse_lora(module)
    kept = saved_tensors(lambda: lora._lora_forward([module.q_proj, module.k_proj, module.v_proj], x))
    ranks = 3 + 5 + 3
    weights = [(ranks, 16), (16, 3), (16, 5), (16, 3), *[(16, 16)] * 3]
    assert [tuple(tensor.shape) for tensor in kept] == [(2, 5, 16), (2 * 5, ranks), *weights]


@pytest.mark.parametrize("biased", [True, False])
def test_the_lora_operators_pass_opcheck(biased: bool) -> None:
    x, narrow = torch.randn(2, 5, 16), torch.randn(8, 16)
    weights, biases = [torch.randn(12, 16), torch.randn(7, 16)], [torch.randn(12), torch.randn(7)] * biased
    wides, scalings = [torch.randn(12, 3), torch.randn(7, 5)], [2.0, 0.5]
    gradients, images = [torch.randn(2, 5, 12), torch.randn(2, 5, 7)], torch.randn(2 * 5, 8)
    for input_wanted in (True, False):
        plain: Any = (gradients, x, images, weights, narrow, wides, scalings, input_wanted)
        torch.library.opcheck(lora._lora_backward, plain)
    for trained in (x, narrow, *wides):
        trained.requires_grad_()
    torch.library.opcheck(lora._lora, (x, weights, biases, narrow, wides, scalings))


def test_the_input_is_shared_only_while_all_three_layers_have_active_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, ours, theirs = count_lora_calls(monkeypatch), attention_with_lora(), attention_with_lora()
    x = torch.randn(2, 5, 16)
    assert lora.fuse_lora(ours) == 4

    def compute_the_same(*sharing: int) -> None:
        calls.clear()
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
        assert calls == [*sharing]

    compute_the_same(3, 1)
    with torch.no_grad():
        compute_the_same()
    ours.k_proj.merge()
    compute_the_same(1, 1, 1)
    ours.k_proj.unmerge()
    for module in (ours, theirs):
        module.v_proj.enable_adapters(False)
    compute_the_same(1, 1, 1)
    for module in (ours, theirs):
        module.v_proj = module.v_proj.get_base_layer()
    compute_the_same(1, 1, 1)


def test_attention_with_a_shared_input_can_be_compiled() -> None:
    module = attention_with_lora()
    lora.fuse_lora(module)
    trained = [p for p in module.parameters() if p.requires_grad]
    compiled = torch.compile(module.forward, dynamic=True, fullgraph=True, backend="aot_eager")
    try:
        for crops in (2, 3):
            x = torch.randn(crops, 5, 16)
            found, expected = (
                torch.autograd.grad(forward(x)[0].square().sum(), trained) for forward in (compiled, module)
            )
            torch.testing.assert_close(found, expected)
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("left_out", ["q_proj", "k_proj", "v_proj"])
def test_the_input_is_not_shared_if_one_layer_has_no_adapter(left_out: str) -> None:
    module = attention_with_lora(left_out)
    assert lora.fuse_lora(module) == 3
    assert type(module) is CLIPAttention

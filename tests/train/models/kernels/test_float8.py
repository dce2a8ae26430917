"""Float8 layers: accuracy of products, use with LoRA, and errors for unsupported options and GPUs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from convkit.errors import ConvkitError
from convkit.train import run
from convkit.train.config import resolve
from convkit.train.models.kernels import float8, lora
from convkit.train.models.kernels.float8 import (
    Float8Linear,
    float8_matmul,
    float8_matmul_backward,
    quantize_rows,
)
from convkit.train.models.kernels.float8_format import LARGEST, STORED
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup import trainable
from convkit.train.setup.trainable import unwrapped_name
from tests.train.helpers import runs

CLOSE = 0.06
"""Bound of the relative error: values are rounded to 4 binary digits, 2.6 % of each on average."""


def float8_layers(model: nn.Module) -> set[str]:
    return {unwrapped_name(name) for name, module in model.named_modules() if isinstance(module, Float8Linear)}


def relative_error(ours: Tensor, exact: Tensor) -> float:
    ours, exact = ours.detach().float(), exact.detach().float()
    return float((ours - exact).norm() / exact.norm())


def layer(bias: bool = True) -> tuple[Float8Linear, nn.Linear]:
    """Return a float8 layer and the layer that it was made from."""
    torch.manual_seed(0)
    exact, ours = (nn.Linear(32, 48, bias, dtype=torch.bfloat16) for _ in range(2))
    ours.load_state_dict(exact.state_dict())
    ours.__class__ = Float8Linear
    assert isinstance(ours, Float8Linear)
    ours.set_weight(ours.weight.data)
    return ours.requires_grad_(False), exact.requires_grad_(False)


@given(st.lists(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_quantization_keeps_four_bits_of_values_that_are_not_small_in_their_row(numbers: list[list[float]]) -> None:
    exact = torch.tensor(numbers)
    packed, scale = quantize_rows(exact)
    assert (packed.dtype, scale.dtype, scale.shape) == (STORED, torch.float32, (len(numbers), 1))
    found, step = packed.double() * scale.double(), scale.double() * 2**-9
    assert ((found - exact.double()).abs() <= exact.double().abs() / 15.9 + step * 0.51).all()


@pytest.mark.parametrize("device", runs.DEVICES)
def test_rows_of_zeros_and_of_nan_or_infinity_are_quantized(device: str) -> None:
    packed, scale = quantize_rows(torch.tensor([[0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]], device=device))
    assert not packed[0].float().any() and scale[0] > 0
    for row in (1, 2):  # NaN reaches the loss, where it is detected
        assert (packed[row].float() * scale[row]).isnan().any()


@pytest.mark.parametrize("device", runs.DEVICES)
def test_products_of_zero_rows_are_empty(device: str) -> None:
    packed, scale = quantize_rows(torch.randn(48, 64, device=device))
    assert float8_matmul(torch.empty(0, 64, device=device), packed, scale).shape == (0, 48)
    assert float8_matmul_backward(torch.empty(0, 48, device=device), packed.t().contiguous(), scale).shape == (0, 64)


@pytest.mark.parametrize("device", runs.DEVICES)
def test_float8_products_are_close_to_exact_products(device: str) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(40, 64) * torch.logspace(-4, 4, 40).unsqueeze(1), torch.randn(48, 64)
    weight *= torch.logspace(-4, 4, 48).unsqueeze(1)
    upper = torch.randn(40, 48)
    packed, scale = quantize_rows(weight.to(device))
    on_device = rows.to(device, torch.bfloat16), upper.to(device, torch.bfloat16)
    found = float8_matmul(on_device[0], packed, scale)
    assert (found.dtype, found.shape) == (torch.bfloat16, (40, 48))
    exact = rows @ weight.t()
    for row, (ours, theirs) in enumerate(zip(found.cpu(), exact, strict=True)):
        assert relative_error(ours / scale.view(-1).cpu(), theirs / scale.view(-1).cpu()) < CLOSE, row
    back = float8_matmul_backward(on_device[1], packed.t().contiguous(), scale)
    assert (back.dtype, back.shape) == (torch.bfloat16, (40, 64))
    for row, (ours, theirs) in enumerate(zip(back.cpu(), upper @ weight, strict=True)):
        assert relative_error(ours, theirs) < CLOSE, row


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("width", [16, 48, 3072, 16384])
def test_the_triton_kernel_quantizes_like_torch(width: int) -> None:
    torch.manual_seed(0)
    rows, factor = torch.randn(width, 7).bfloat16().t(), torch.rand(width, 1)  # not contiguous
    rows[3] = 0
    for given_factor in (None, factor):
        there = None if given_factor is None else given_factor.cuda()
        ours, theirs = quantize_rows(rows.cuda(), there), quantize_rows(rows, given_factor)
        torch.testing.assert_close(ours[1].cpu(), theirs[1], rtol=1e-6, atol=0)
        differ = ours[0].cpu().float() != theirs[0].float()
        assert differ.float().mean() < 0.01  # the last bit of a scale decides ties
        assert relative_error(ours[0].cpu(), theirs[0]) < 0.01


@pytest.mark.parametrize("bias", [True, False])
def test_the_backward_pass_uses_the_quantized_weights(bias: bool) -> None:
    ours, exact = layer(bias)
    x = torch.randn(2, 5, 32, requires_grad=True)
    upper = torch.randn(2, 5, 48)
    output = ours(x)
    assert output.dtype == torch.float32
    assert relative_error(output, exact(x.bfloat16())) < CLOSE
    (found,) = torch.autograd.grad(output, x, upper)
    used = ours.weight.float() * ours.scale
    assert relative_error(found, upper @ used) < CLOSE
    assert torch.equal(ours.transposed.float(), ours.weight.float().t())
    with torch.no_grad():
        assert torch.equal(ours(x), output)


def test_a_float8_layer_can_be_compiled() -> None:
    ours, _ = layer()
    compiled = torch.compile(ours.forward, dynamic=True, fullgraph=True, backend="aot_eager")
    try:
        for rows in (3, 5):
            x = torch.randn(rows, 32, requires_grad=True)
            found, expected = (torch.autograd.grad(forward(x).square().sum(), x) for forward in (compiled, ours))
            torch.testing.assert_close(found, expected)
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("bias", [True, False])
def test_fused_lora_on_float8_computes_the_same_as_peft(bias: bool) -> None:
    ours, _ = layer(bias)
    model = nn.ModuleDict({"layer": nn.Linear(32, 48, bias, dtype=torch.bfloat16)}).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=5, target_modules=["layer"], init_lora_weights=False), model)
    adapted: Any = model["layer"]
    adapted.base_layer = ours
    x = torch.randn(2, 5, 32, requires_grad=True)
    leaves = [x, *(p for p in adapted.parameters() if p.requires_grad)]

    def computed() -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.autocast("cpu", torch.bfloat16):
            output = adapted(x)
        return output, torch.autograd.grad(output.float().square().sum(), leaves)

    theirs = computed()
    assert lora.fuse_lora(model) == 1
    found = computed()
    assert relative_error(found[0], theirs[0]) < 0.005
    for mine, other in zip(found[1], theirs[1], strict=True):
        assert relative_error(mine, other) < 0.05


@pytest.mark.parametrize("wanted", [True, False])
def test_the_lora_operators_pass_opcheck_on_float8(wanted: bool) -> None:
    ours, _ = layer()
    frozen = [ours.weight, ours.transposed, ours.scale]
    x, narrow = torch.randn(2, 5, 32, dtype=torch.bfloat16), torch.randn(3, 32, dtype=torch.bfloat16)
    wides = [torch.randn(48, 3, dtype=torch.bfloat16)]
    images, upper = torch.randn(10, 3, dtype=torch.bfloat16), [torch.randn(2, 5, 48, dtype=torch.bfloat16)]
    backward: Any = (upper, x, images, frozen, narrow, wides, [0.5], wanted)
    for operator, inputs in ((lora._lora, (x, frozen, [], narrow, wides, [0.5])), (lora._lora_backward, backward)):
        torch.library.opcheck(operator, inputs, test_utils="test_faketensor")


def test_only_base_layers_of_the_language_model_are_in_float8(dataset: Path, family: Phi3VFamily) -> None:
    trainer, ours = runs.first_step(dataset, family, use_lora=True, bf16=True, fp8=True)
    model = trainer.sharding.model
    packed = float8_layers(model)
    layers = [f"model.layers.{number}." for number in range(2)]
    ends = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]
    assert packed == {f"{layer}{end}.base_layer" for layer in layers for end in ends}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in model.named_parameters() if p.requires_grad)
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.02)


def test_the_head_is_not_quantized_for_any_width(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float8, "_WIDTH_MULTIPLE", 1)
    config = runs.config(dataset, family.directory, dataset, use_lora=True, bf16=True, fp8=True)
    packed = float8_layers(trainable.load_for_training(family, config))
    assert packed
    assert all(name.startswith("model.layers.") for name in packed)


def test_lora_on_float8_uses_the_fused_operator(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runs.config(dataset, family.directory, dataset, use_lora=True, bf16=True, fp8=True)
    trainer, packs = runs.parts(config, family)
    calls, ours = list[int](), lora._lora

    def count(x: Tensor, frozen: list[Tensor], *others: Any) -> Any:
        calls.append(len(frozen))
        return ours(x, frozen, *others)

    monkeypatch.setattr(lora, "_lora", count)
    runs.gradients(trainer, packs.batch((0, 1, 2)))
    assert calls.count(3) == 2 * 4 + 3  # three tensors per float8 layer, or one each of CLIP's query, key and value


def test_float8_layers_can_share_an_input() -> None:
    model = nn.ModuleDict({name: nn.Linear(32, 48) for name in ("a", "b")}).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["a", "b"], init_lora_weights=False), model)
    layers: list[Any] = list(model.values())
    float8.convert_to_float8(layer.get_base_layer() for layer in layers)
    lora.fuse_lora(model)
    x = torch.randn(5, 32, requires_grad=True)

    def gradients(outputs: list[Tensor]) -> Tensor:
        found: Tensor = torch.autograd.grad(outputs[0].sum() + outputs[1].square().sum(), x)[0]
        return found

    theirs = gradients([layer(x) for layer in layers])
    torch.testing.assert_close(gradients(lora._lora_forward(layers, x)), theirs, rtol=1e-3, atol=1e-3)
    layers[0].base_layer = nn.Linear(32, 48)
    assert not lora._can_share_input(layers)


def test_layers_of_unsupported_widths_are_not_quantized() -> None:
    layers = [nn.Linear(32, 48), nn.Linear(32, 40), nn.Linear(40, 32), nn.Conv2d(1, 1, 1)]
    float8.convert_to_float8(layers)
    assert [type(layer) for layer in layers] == [Float8Linear, nn.Linear, nn.Linear, nn.Conv2d]


def test_gradient_errors_are_within_the_bounds_of_rounding(dataset: Path, family: Phi3VFamily) -> None:
    """Relative errors of a small random model: 0.03 in bfloat16, 0.18 in float8, 0.52 in 4 bits."""
    found = []
    for options in ({}, {"bf16": True, "fp8": True}):
        trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, use_lora=True, **options), family)
        runs.stir(trainer.sharding.model)
        loss, by_name = runs.gradients(trainer, packs.batch((0, 1, 2)))
        found.append((loss, torch.cat([by_name[name].flatten() for name in sorted(by_name)])))
    (exact, theirs), (loss, ours) = found
    assert loss == pytest.approx(exact, rel=0.01)
    assert 0.05 < relative_error(ours, theirs) < 0.25
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.97


def test_float8_training_with_lora_dropout_uses_peft_and_completes(
    dataset: Path, family: Phi3VFamily, tmp_path: Path
) -> None:
    messages: list[str] = []
    options = {"use_lora": True, "bf16": True, "fp8": True, "lora_dropout": 0.1}
    config = runs.config(dataset, family.directory, tmp_path / "run", **options)
    model = trainable.load_for_training(family, config)
    assert any(isinstance(module, Float8Linear) for module in model.modules())
    assert not any(isinstance(module, lora.Fused) for module in model.modules())
    run.train(config, family, runs.ONE, log=messages.append)
    assert messages[-1].startswith("10 rows planned = 10 trained")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf16": True}, "is only for the frozen weights under LoRA. Train with --use_lora, or"),
        ({"use_qlora": True, "bf16": True}, "contradicts --use_qlora. Train with --use_lora, or"),
        ({"use_lora": True}, "needs bfloat16 for the rest. Add --bf16, or"),
        ({"use_lora": True, "fp16": True}, "cannot be combined with --fp16. Use --bf16, or"),
    ],
)
def test_fp8_needs_lora_and_bfloat16(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvkitError, match=f"--fp8 {message} leave --fp8 out"):
        resolve({"data_dir": "d", "model": "m", "output_dir": "o", "fp8": True, **options})


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        ((8, 0), "Old Card does not support float8; Ada,"),
        ((9, 0), r"does not work on Old Card here: no C compiler\."),
    ],
)
def test_an_unsupported_gpu_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], message: str
) -> None:
    def refused(*args: Any) -> Tensor:
        raise RuntimeError("no\n C compiler")

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: ones(*shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(float8, "float8_matmul", refused)
    with pytest.raises(ConvkitError, match=f"--fp8:? {message}.* Leave it out"):
        float8.convert_to_float8([])


def test_the_largest_value_of_a_row_maps_to_the_largest_float8() -> None:
    packed, scale = quantize_rows(torch.tensor([[1.0, -7.0, 3.5]]))
    assert packed.float().abs().max() == LARGEST
    assert scale.item() == pytest.approx(7 / LARGEST)

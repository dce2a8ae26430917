"""Products in float8: how far they are from exact ones, what they are taken for, what is said where they do not go."""

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
from convkit.train.models.kernels.float8 import LARGEST, Float8Linear, product, product_back, rounded
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.setup import trainable
from convkit.train.setup.trainable import own_name
from tests.train.helpers import runs

CLOSE = 0.06
"""Norm of the difference over the norm: numbers are rounded to 4 digits of binary, 2.6 % of each on average."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_dataset(tmp_path_factory.mktemp("data") / "pets")


def in_float8(model: nn.Module) -> set[str]:
    return {own_name(name) for name, module in model.named_modules() if isinstance(module, Float8Linear)}


def apart(ours: Tensor, exact: Tensor) -> float:
    ours, exact = ours.detach().float(), exact.detach().float()
    return float((ours - exact).norm() / exact.norm())


def layer(bias: bool = True) -> tuple[Float8Linear, nn.Linear]:
    """One in float8, and what it was."""
    torch.manual_seed(0)
    exact, ours = (nn.Linear(32, 48, bias, dtype=torch.bfloat16) for _ in range(2))
    ours.load_state_dict(exact.state_dict())
    ours.__class__ = Float8Linear
    assert isinstance(ours, Float8Linear)
    ours.take(ours.weight.data)
    return ours.requires_grad_(False), exact.requires_grad_(False)


@given(st.lists(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_rounding_keeps_four_digits_of_what_is_not_small_in_its_row(numbers: list[list[float]]) -> None:
    exact = torch.tensor(numbers)
    packed, scale = rounded(exact)
    assert (packed.dtype, scale.dtype, scale.shape) == (float8.STORED, torch.float32, (len(numbers), 1))
    found, step = packed.double() * scale.double(), scale.double() * 2**-9
    assert ((found - exact.double()).abs() <= exact.double().abs() / 15.9 + step * 0.51).all()


@pytest.mark.parametrize("device", runs.DEVICES)
def test_a_row_of_zeros_and_what_is_no_number(device: str) -> None:
    packed, scale = rounded(torch.tensor([[0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]], device=device))
    assert not packed[0].float().any() and scale[0] > 0
    for row in (1, 2):  # it is seen in the loss
        assert (packed[row].float() * scale[row]).isnan().any()


@pytest.mark.parametrize("device", runs.DEVICES)
def test_no_rows_are_no_trouble(device: str) -> None:
    packed, scale = rounded(torch.randn(48, 64, device=device))
    assert product(torch.empty(0, 64, device=device), packed, scale).shape == (0, 48)
    assert product_back(torch.empty(0, 48, device=device), packed.t().contiguous(), scale).shape == (0, 64)


@pytest.mark.parametrize("device", runs.DEVICES)
def test_products_are_close_to_exact_ones(device: str) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(40, 64) * torch.logspace(-4, 4, 40).unsqueeze(1), torch.randn(48, 64)
    weight *= torch.logspace(-4, 4, 48).unsqueeze(1)
    upper = torch.randn(40, 48)
    packed, scale = rounded(weight.to(device))
    on_device = rows.to(device, torch.bfloat16), upper.to(device, torch.bfloat16)
    found = product(on_device[0], packed, scale)
    assert (found.dtype, found.shape) == (torch.bfloat16, (40, 48))
    exact = rows @ weight.t()
    for row, (ours, theirs) in enumerate(zip(found.cpu(), exact, strict=True)):
        assert apart(ours / scale.view(-1).cpu(), theirs / scale.view(-1).cpu()) < CLOSE, row
    back = product_back(on_device[1], packed.t().contiguous(), scale)
    assert (back.dtype, back.shape) == (torch.bfloat16, (40, 64))
    for row, (ours, theirs) in enumerate(zip(back.cpu(), upper @ weight, strict=True)):
        assert apart(ours, theirs) < CLOSE, row


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("width", [16, 48, 3072, 16384])
def test_the_kernel_rounds_as_torch_does(width: int) -> None:
    torch.manual_seed(0)
    rows, factor = torch.randn(width, 7).bfloat16().t(), torch.rand(width, 1)  # not contiguous
    rows[3] = 0
    for given_factor in (None, factor):
        there = None if given_factor is None else given_factor.cuda()
        ours, theirs = rounded(rows.cuda(), there), rounded(rows, given_factor)
        torch.testing.assert_close(ours[1].cpu(), theirs[1], rtol=1e-6, atol=0)
        differ = ours[0].cpu().float() != theirs[0].float()
        assert differ.float().mean() < 0.01  # a scale's last bit decides between two neighbours
        assert apart(ours[0].cpu(), theirs[0]) < 0.01


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_that_of_the_weights_that_were_multiplied_by(bias: bool) -> None:
    ours, exact = layer(bias)
    x = torch.randn(2, 5, 32, requires_grad=True)
    upper = torch.randn(2, 5, 48)
    output = ours(x)
    assert output.dtype == torch.float32
    assert apart(output, exact(x.bfloat16())) < CLOSE
    (found,) = torch.autograd.grad(output, x, upper)
    used = ours.weight.float() * ours.scale
    assert apart(found, upper @ used) < CLOSE
    assert torch.equal(ours.turned.float(), ours.weight.float().t())
    with torch.no_grad():
        assert torch.equal(ours(x), output)


def test_torch_compiles_around_a_layer() -> None:
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
def test_adapters_on_float8_compute_what_peft_does(bias: bool) -> None:
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
    assert lora.fuse(model) == 1
    found = computed()
    assert apart(found[0], theirs[0]) < 0.005
    for mine, other in zip(found[1], theirs[1], strict=True):
        assert apart(mine, other) < 0.05


@pytest.mark.parametrize("wanted", [True, False])
def test_torch_can_compile_adapters_on_float8(wanted: bool) -> None:
    ours, _ = layer()
    frozen = [ours.weight, ours.turned, ours.scale]
    x, narrow = torch.randn(2, 5, 32, dtype=torch.bfloat16), torch.randn(3, 32, dtype=torch.bfloat16)
    wides = [torch.randn(48, 3, dtype=torch.bfloat16)]
    images, upper = torch.randn(10, 3, dtype=torch.bfloat16), [torch.randn(2, 5, 48, dtype=torch.bfloat16)]
    backward: Any = (upper, x, images, frozen, narrow, wides, [0.5], wanted)
    for operator, inputs in ((lora._lora, (x, frozen, [], narrow, wides, [0.5])), (lora._lora_backward, backward)):
        torch.library.opcheck(operator, inputs, test_utils="test_faketensor")


def test_what_is_in_float8(dataset: Path, family: Phi3VFamily) -> None:
    trainer, ours = runs.first_step(dataset, family, use_lora=True, bf16=True, fp8=True)
    model = trainer.sharding.model
    packed = in_float8(model)
    layers = [f"model.layers.{number}." for number in range(2)]
    ends = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]
    assert packed == {f"{layer}{end}.base_layer" for layer in layers for end in ends}
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in model.named_parameters() if p.requires_grad)
    _, exact = runs.first_step(dataset, family, use_lora=True)
    assert ours.loss != exact.loss
    assert ours.loss == pytest.approx(exact.loss, rel=0.02)


def test_a_head_stays_as_it_is_whatever_its_width(
    dataset: Path, family: Phi3VFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float8, "_SIDE", 1)
    config = runs.config(dataset, family.directory, dataset, use_lora=True, bf16=True, fp8=True)
    packed = in_float8(trainable.load(family, config))
    assert packed
    assert all(name.startswith("model.layers.") for name in packed)


def test_adapters_on_float8_go_the_fast_way(
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
    assert calls.count(3) == 2 * 4 + 3  # three tensors of one layer in float8, or of CLIP's query, key and value


def test_layers_in_float8_share_an_input() -> None:
    model = nn.ModuleDict({name: nn.Linear(32, 48) for name in ("a", "b")}).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["a", "b"], init_lora_weights=False), model)
    layers: list[Any] = list(model.values())
    float8.shrink(layer.get_base_layer() for layer in layers)
    lora.fuse(model)
    x = torch.randn(5, 32, requires_grad=True)

    def gradients(outputs: list[Tensor]) -> Tensor:
        found: Tensor = torch.autograd.grad(outputs[0].sum() + outputs[1].square().sum(), x)[0]
        return found

    theirs = gradients([layer(x) for layer in layers])
    torch.testing.assert_close(gradients(lora._adapted(layers, x)), theirs, rtol=1e-3, atol=1e-3)
    layers[0].base_layer = nn.Linear(32, 48)
    assert not lora._share(layers)


def test_widths_that_gpus_do_not_take_stay_as_they_are() -> None:
    layers = [nn.Linear(32, 48), nn.Linear(32, 40), nn.Linear(40, 32), nn.Conv2d(1, 1, 1)]
    float8.shrink(layers)
    assert [type(layer) for layer in layers] == [Float8Linear, nn.Linear, nn.Linear, nn.Conv2d]


def test_gradients_stay_within_what_rounding_explains(dataset: Path, family: Phi3VFamily) -> None:
    """Of a small model with random weights: 0.03 away with bfloat16, 0.18 with float8, 0.52 with 4 bits."""
    found = []
    for options in ({}, {"bf16": True, "fp8": True}):
        trainer, packs = runs.parts(runs.config(dataset, family.directory, dataset, use_lora=True, **options), family)
        runs.stir(trainer.sharding.model)
        loss, by_name = runs.gradients(trainer, packs.batch((0, 1, 2)))
        found.append((loss, torch.cat([by_name[name].flatten() for name in sorted(by_name)])))
    (exact, theirs), (loss, ours) = found
    assert loss == pytest.approx(exact, rel=0.01)
    assert 0.05 < apart(ours, theirs) < 0.25
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.97


def test_a_layer_with_dropout_is_left_to_peft_and_learns(dataset: Path, family: Phi3VFamily, tmp_path: Path) -> None:
    said: list[str] = []
    options = {"use_lora": True, "bf16": True, "fp8": True, "lora_dropout": 0.1}
    config = runs.config(dataset, family.directory, tmp_path / "run", **options)
    model = trainable.load(family, config)
    assert any(isinstance(module, Float8Linear) for module in model.modules())
    assert not any(isinstance(module, lora.Fused) for module in model.modules())
    run.train(config, family, runs.ONE, say=said.append)
    assert said[-1].startswith("10 rows planned = 10 trained")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf16": True}, "is of frozen weights under adapters. Train with --use_lora, or"),
        ({"use_qlora": True, "bf16": True}, "contradicts --use_qlora. Train with --use_lora, or"),
        ({"use_lora": True}, "computes in bfloat16 beside float8. Give --bf16, or"),
        ({"use_lora": True, "fp16": True}, "cannot be had with --fp16. Give --bf16, or"),
    ],
)
def test_float8_is_of_adapters_beside_bfloat16(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvkitError, match=f"--fp8 {message} leave --fp8 out"):
        resolve({"data_dir": "d", "model": "m", "output_dir": "o", "fp8": True, **options})


@pytest.mark.parametrize(
    ("capability", "message"),
    [
        ((8, 0), "Old Card has no float8; Ada,"),
        ((9, 0), r"does not work on Old Card here: no C compiler\."),
    ],
)
def test_a_gpu_where_it_does_not_work_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], message: str
) -> None:
    def refused(*args: Any) -> Tensor:
        raise RuntimeError("no\n C compiler")

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: ones(*shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(float8, "product", refused)
    with pytest.raises(ConvkitError, match=f"--fp8:? {message}.* Leave it out"):
        float8.shrink([])


def test_the_largest_number_is_float8s() -> None:
    packed, scale = rounded(torch.tensor([[1.0, -7.0, 3.5]]))
    assert packed.float().abs().max() == LARGEST
    assert scale.item() == pytest.approx(7 / LARGEST)

"""LoRA's layers with few passes over their inputs and outputs, on top of peft's modules.

peft computes `base(x) + lora_B(lora_A(x)) * scaling`, and autograd one pass after the other: on a GPU these passes cost
as much as a quarter of the products. Here what the adapter adds is written first, and the large product is added to
it while it leaves the registers, forward and backward: the wide tensors are not gone over again. Nothing is kept for
the backward pass but the input and its narrow image.

Shape letters: M tokens, K width of the input, N of the output, R rank.
"""

import importlib.util
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from convkit.train.quantize import BLOCK, KIND


def fuse(model: nn.Module) -> int:
    """Exchange the forward pass of all adapted linear layers; returns how many there are.

    Layers with dropout, whose adapter has an input of its own, and others that peft treats in a special way are left
    as they are.
    """
    exchanged = {Linear: FusedLinear, **_of_four_bits()}
    fused = [module for module in model.modules() if type(module) in exchanged and _plain(module)]
    for module in fused:
        module.__class__ = exchanged[type(module)]
    return len(fused)


def _plain(module: Any) -> bool:
    name = module.active_adapters[0]
    return (
        isinstance(module.base_layer, nn.Linear)
        and len(module.active_adapters) == 1
        and not module.lora_variant
        and not module.lora_bias[name]
        and isinstance(module.lora_dropout[name], nn.Identity)
    )


class Fused:
    """The forward pass instead of peft's; what is not trained, merged or switched off goes peft's way."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or not torch.is_grad_enabled():
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        name, base = self.active_adapters[0], self.base_layer
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        narrow, wide = self.lora_A[name].weight.to(dtype), self.lora_B[name].weight.to(dtype)
        bias = None if base.bias is None else base.bias.to(dtype)
        packed = getattr(base.weight, "quant_state", None)
        weight, scales = (base.weight.to(dtype), None) if packed is None else (base.weight.data, packed.absmax)
        output: Tensor = _lora(x.to(dtype), weight, scales, bias, narrow, wide, self.scaling[name])[0]
        return output


class FusedLinear(Fused, Linear):  # type: ignore[misc]
    """On weights as they are."""


@cache
def _of_four_bits() -> dict[type, type]:
    """Likewise for weights in 4 bits, where bitsandbytes is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return {}
    from peft.tuners.lora.bnb import Linear4bit

    return {Linear4bit: type("FusedLinear4bit", (Fused, Linear4bit), {})}


def _unpacked(weight: Tensor, scales: Tensor | None, narrow: Tensor, wide: Tensor) -> Tensor:
    """The weight (N, K) to multiply by; of 4 bits a copy in the adapter's type."""
    if scales is None:
        return weight
    shape = [wide.shape[0], narrow.shape[1]]
    whole: Tensor = torch.ops.bitsandbytes.dequantize_4bit(weight, scales, BLOCK, KIND, shape, narrow.dtype)
    return whole


@torch.library.custom_op("convkit::lora", mutates_args=())
def _lora(
    x: Tensor,
    weight: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    narrow: Tensor,
    wide: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """The output (…, N), and the input's image (M, R); weight (N, K), narrow (R, K), wide (N, R)."""
    rows = x.reshape(-1, x.shape[-1])
    image = rows @ narrow.t()
    output = F.linear(image * scaling, wide, bias).addmm_(rows, _unpacked(weight, scales, narrow, wide).t())
    return output.view(*x.shape[:-1], len(wide)), image


@_lora.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    narrow: Tensor,
    wide: Tensor,
    scaling: float,
) -> Any:
    tokens = x.numel() // x.shape[-1]
    return x.new_empty(*x.shape[:-1], wide.shape[0]), x.new_empty(tokens, narrow.shape[0])


@torch.library.custom_op("convkit::lora_backward", mutates_args=())
def _lora_backward(
    gradient: Tensor,
    x: Tensor,
    image: Tensor,
    weight: Tensor,
    scales: Tensor | None,
    narrow: Tensor,
    wide: Tensor,
    scaling: float,
    input_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input (empty where it is not wanted), of narrow and of wide."""
    rows, upper = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    of_image = (upper @ wide).mul_(scaling)
    of_narrow = of_image.t() @ rows
    of_wide = (upper.t() @ image).mul_(scaling)
    if not input_wanted:
        return x.new_empty(0), of_narrow, of_wide
    of_x = (of_image @ narrow).addmm_(upper, _unpacked(weight, scales, narrow, wide))
    return of_x.view(x.shape), of_narrow, of_wide


@_lora_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    image: Tensor,
    weight: Tensor,
    scales: Tensor | None,
    narrow: Tensor,
    wide: Tensor,
    scaling: float,
    input_wanted: bool,
) -> Any:
    of_x = x.new_empty(x.shape if input_wanted else 0)
    return of_x, narrow.new_empty(narrow.shape), wide.new_empty(wide.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, scales, _, narrow, wide, scaling = inputs
    ctx.save_for_backward(x, output[1], weight, scales, narrow, wide)
    ctx.scaling = scaling


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    x, image, weight, scales, narrow, wide = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    of_x, of_narrow, of_wide = _lora_backward(
        gradient.contiguous(), x, image, weight, scales, narrow, wide, ctx.scaling, wanted
    )
    return of_x if wanted else None, None, None, None, of_narrow, of_wide, None


_lora.register_autograd(_backward, setup_context=_keep)

"""LoRA's layers with few passes over their inputs and outputs, on top of peft's modules.

peft computes `base(x) + lora_B(lora_A(x)) * scaling`, and autograd one pass after the other: on a GPU these passes cost
as much as a quarter of the products. Here what the adapter adds is written first, and the large product reads it and
adds itself while it has arithmetic to do, forward and backward: no pass over the wide tensors of its own. Layers that
read the same input, as query, key and value do in CLIP, go over it once for all their adapters, and add up its gradient
in place. Nothing is kept for the backward pass but the input and its narrow images.

Shape letters: M tokens, K width of the input, N of an output, R rank, and S those of all layers of an input together.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, eager_attention_forward

from convkit.train.quantize import BLOCK, KIND


def fuse(model: nn.Module) -> int:
    """Exchange the forward pass of all adapted linear layers; returns how many there are.

    Layers with dropout, whose adapter has an input of its own, and others that peft treats in a special way are left
    as they are. CLIP's attention lets those exchanged that read its input share it.
    """
    exchanged = {Linear: FusedLinear, **_of_four_bits()}
    fused = [module for module in model.modules() if type(module) in exchanged and _plain(module)]
    for module in fused:
        module.__class__ = exchanged[type(module)]
    for module in model.modules():
        if type(module) is CLIPAttention and _share(_of_input(module)):
            module.__class__ = SharedAttention
    return len(fused)


def unfuse(model: nn.Module) -> None:
    """Leave to peft and transformers what `fuse` took over."""
    for module in model.modules():
        if isinstance(module, Fused):
            module.__class__ = type(module).__bases__[1]
        elif isinstance(module, SharedAttention):
            module.__class__ = CLIPAttention


def _plain(module: Any) -> bool:
    name = module.active_adapters[0]
    return (
        isinstance(module.base_layer, nn.Linear)
        and len(module.active_adapters) == 1
        and not module.lora_variant
        and not module.lora_bias[name]
        and isinstance(module.lora_dropout[name], nn.Identity)
    )


def _of_input(attention: Any) -> list[Any]:
    """The layers that read its input."""
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def _share(layers: Sequence[nn.Module]) -> bool:
    """Whether all are fused, and of one kind."""
    kinds = {(type(layer), getattr(layer, "bias", None) is None) for layer in layers}
    return isinstance(layers[0], Fused) and len(kinds) == 1


class Fused:
    """The forward pass instead of peft's; what is not trained, merged or switched off goes peft's way."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.adapts:
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        return _adapted([self], x)[0]

    @property
    def adapts(self: Any) -> bool:
        return not self.disable_adapters and not self.merged and torch.is_grad_enabled()


class FusedLinear(Fused, Linear):  # type: ignore[misc]
    """On weights as they are."""


@cache
def _of_four_bits() -> dict[type, type]:
    """Likewise for weights in 4 bits, where bitsandbytes is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return {}
    from peft.tuners.lora.bnb import Linear4bit

    return {Linear4bit: type("FusedLinear4bit", (Fused, Linear4bit), {})}


class SharedAttention(CLIPAttention):  # type: ignore[misc]
    """CLIP's attention whose query, key and value read their input once, as long as all of them are fused."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        layers = _of_input(self)
        if not (_share(layers) and all(layer.adapts for layer in layers)):
            return super().forward(hidden_states, attention_mask, **kwargs)
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        states = [part.view(heads).transpose(1, 2) for part in _adapted(layers, hidden_states)]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        output, seen = attend(self, *states, attention_mask, scaling=self.scale, dropout=dropout, **kwargs)
        return self.out_proj(output.reshape(hidden_states.shape).contiguous()), seen


def _adapted(layers: Sequence[Any], x: Tensor) -> list[Tensor]:
    """The outputs (…, N) of layers of one kind on the same input (…, K)."""
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    bases = [layer.base_layer for layer in layers]
    packed = getattr(bases[0].weight, "quant_state", None) is not None
    weights = [base.weight.data if packed else base.weight.to(dtype) for base in bases]
    scales = [base.weight.quant_state.absmax for base in bases if packed]
    biases = [base.bias.to(dtype) for base in bases if base.bias is not None]
    named = [(layer, layer.active_adapters[0]) for layer in layers]
    narrows = [layer.lora_A[name].weight.to(dtype) for layer, name in named]
    narrow = torch.cat(narrows) if len(narrows) > 1 else narrows[0]
    wides = [layer.lora_B[name].weight.to(dtype) for layer, name in named]
    scalings = [layer.scaling[name] for layer, name in named]
    outputs: list[Tensor] = _lora(x.to(dtype), weights, scales, biases, narrow, wides, scalings)[0]
    return outputs


def _unpacked(
    weights: Sequence[Tensor], scales: Sequence[Tensor], narrow: Tensor, wides: Sequence[Tensor]
) -> Iterator[Tensor]:
    """The weights (N, K) to multiply by, each when its turn comes; of 4 bits a copy in the adapter's type."""
    if not scales:
        yield from weights
        return
    for weight, scale, wide in zip(weights, scales, wides, strict=True):
        shape = [wide.shape[0], narrow.shape[1]]
        yield torch.ops.bitsandbytes.dequantize_4bit(weight, scale, BLOCK, KIND, shape, narrow.dtype)


def _parts(images: Tensor, wides: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Images (M, S) of all layers as those of each (M, R)."""
    return (images,) if len(wides) == 1 else images.split_with_sizes([wide.shape[1] for wide in wides], dim=1)


_OPS = torch.library.Library("convkit", "DEF")  # type: ignore[no-untyped-call]


def _op(name: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """An operator that torch compiles around, of what computes it and of what makes outputs of the same shapes.

    Not `torch.library.custom_op`: at each call it looks whether outputs share memory with inputs. A profile showed 0.2
    ms of that on a processor (torch 2.11), for which small packs waited. Unlike it, names are given once a process.
    """
    schema = torch.library.infer_schema(kernel, mutates_args=())
    torch.library.define(f"convkit::{name}", schema, lib=_OPS)
    torch.library.impl(f"convkit::{name}", "CompositeExplicitAutograd", kernel, lib=_OPS)
    torch.library.register_fake(f"convkit::{name}", fake, lib=_OPS)
    return getattr(torch.ops.convkit, name).default


def _outputs(
    x: Tensor,
    weights: Sequence[Tensor],
    scales: Sequence[Tensor],
    biases: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
    scalings: Sequence[float],
) -> tuple[list[Tensor], Tensor]:
    """The outputs (…, N) of layers with the same input, and its images (M, S).

    Weights are (N, K), narrow (S, K), wides (N, R); scales and biases are as many, or none.
    """
    rows = x.reshape(-1, x.shape[-1])
    images = rows @ narrow.t()
    each_bias: Sequence[Tensor | None] = biases or [None] * len(wides)
    each_weight = _unpacked(weights, scales, narrow, wides)
    outputs = []
    layers = zip(_parts(images, wides), wides, scalings, each_weight, each_bias, strict=True)
    for image, wide, scaling, weight, bias in layers:
        output = F.linear(image * scaling, wide, bias).addmm_(rows, weight.t())
        outputs.append(output.view(*x.shape[:-1], wide.shape[0]))
    return outputs, images


def _outputs_alike(
    x: Tensor, weights: Any, scales: Any, biases: Any, narrow: Tensor, wides: list[Tensor], scalings: Any
) -> Any:
    outputs = [x.new_empty(*x.shape[:-1], wide.shape[0]) for wide in wides]
    return outputs, x.new_empty(x.numel() // x.shape[-1], narrow.shape[0])


def _gradients(
    gradients: Sequence[Tensor],
    x: Tensor,
    images: Tensor,
    weights: Sequence[Tensor],
    scales: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
    scalings: Sequence[float],
    input_wanted: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of the input (empty where it is not wanted), of narrow and of wides."""
    rows = x.reshape(-1, x.shape[-1])
    uppers = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    of_images, of_wides = torch.empty_like(images), []
    layers = zip(uppers, wides, scalings, _parts(images, wides), _parts(of_images, wides), strict=True)
    for upper, wide, scaling, image, of_image in layers:
        of_image.addmm_(upper, wide, beta=0, alpha=scaling)  # written where it belongs, whatever was there
        of_wides.append((upper.t() @ image).mul_(scaling))
    of_narrow = of_images.t() @ rows
    if not input_wanted:
        return x.new_empty(0), of_narrow, of_wides
    of_rows = of_images @ narrow
    for upper, weight in zip(uppers, _unpacked(weights, scales, narrow, wides), strict=True):
        of_rows.addmm_(upper, weight)
    return of_rows.view(x.shape), of_narrow, of_wides


def _gradients_alike(
    gradients: Any,
    x: Tensor,
    images: Any,
    weights: Any,
    scales: Any,
    narrow: Tensor,
    wides: list[Tensor],
    scalings: Any,
    input_wanted: bool,
) -> Any:
    of_x = x.new_empty(x.shape if input_wanted else 0)
    return of_x, narrow.new_empty(narrow.shape), [wide.new_empty(wide.shape) for wide in wides]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[list[Tensor], Tensor]) -> None:
    x, weights, scales, biases, narrow, wides, scalings = inputs
    ctx.save_for_backward(x, output[1], narrow, *weights, *wides, *scales)
    ctx.biases, ctx.scalings = len(biases), scalings


def _backward(ctx: Any, gradients: list[Tensor], _: Tensor) -> tuple[Any, ...]:
    x, images, narrow, *others = ctx.saved_tensors
    count, wanted = len(gradients), ctx.needs_input_grad[0]
    weights, wides, scales = others[:count], others[count : 2 * count], others[2 * count :]
    whole = [gradient.contiguous() for gradient in gradients]
    of_x, of_narrow, of_wides = _lora_backward(whole, x, images, weights, scales, narrow, wides, ctx.scalings, wanted)
    frozen = ([None] * count, [None] * len(scales), [None] * ctx.biases)
    return of_x if wanted else None, *frozen, of_narrow, of_wides, None


_lora = _op("lora", _outputs, _outputs_alike)
_lora_backward = _op("lora_backward", _gradients, _gradients_alike)
torch.library.register_autograd("convkit::lora", _backward, setup_context=_keep, lib=_OPS)

"""LoRA's layers with few passes over their inputs and outputs, on top of peft's modules.

peft computes `base(x) + lora_B(lora_A(x)) * scaling`, and autograd one pass after the other: on a GPU these passes cost
as much as a quarter of the products. Here what the adapter adds is written first, and the large product reads it and
adds itself while it has arithmetic to do, forward and backward: no pass over the wide tensors of its own. Layers that
read the same input, as query, key and value do in CLIP, go over it once for all their adapters, and add up its gradient
in place. Nothing is kept for the backward pass but the input and its narrow images.

Shape letters: M tokens, K width of the input, N of an output, R rank, and S those of all layers of an input together.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache, reduce
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, eager_attention_forward

from convkit.train.models.kernels.autocast import computed_in
from convkit.train.models.kernels.float8 import STORED, Float8Linear, product, product_back
from convkit.train.models.kernels.library import LIBRARY, operator
from convkit.train.models.kernels.nf4 import BLOCK, KIND


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
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    kinds = {(type(layer), type(base), base.bias is None) for layer, base in zip(layers, bases, strict=True)}
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
    dtype = computed_in(x)
    bases = [layer.base_layer for layer in layers]
    frozen = [tensor for base in bases for tensor in _frozen(base, dtype)]
    biases = [base.bias.to(dtype) for base in bases if base.bias is not None]
    named = [(layer, layer.active_adapters[0]) for layer in layers]
    narrows = [layer.lora_A[name].weight.to(dtype) for layer, name in named]
    narrow = torch.cat(narrows) if len(narrows) > 1 else narrows[0]
    wides = [layer.lora_B[name].weight.to(dtype) for layer, name in named]
    scalings = [layer.scaling[name] for layer, name in named]
    outputs: list[Tensor] = _lora(x.to(dtype), frozen, biases, narrow, wides, scalings)[0]
    return outputs


def _frozen(base: Any, dtype: torch.dtype) -> list[Tensor]:
    """What a layer's weight (N, K) is made of: itself; 4 bits and scales; or 8 bits, their mirror and scales."""
    if isinstance(base, Float8Linear):
        return [base.weight, base.turned, base.scale]
    packed = getattr(base.weight, "quant_state", None)
    return [base.weight.to(dtype)] if packed is None else [base.weight.data, packed.absmax]


def _each(frozen: Sequence[Tensor], wides: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """The `_frozen` of each layer."""
    count = len(frozen) // len(wides)
    return (frozen[start : start + count] for start in range(0, len(frozen), count))


def _whole(frozen: Sequence[Tensor], narrow: Tensor, wide: Tensor) -> Tensor:
    """The weight (N, K) to multiply by; of 4 bits a copy in the adapter's type."""
    if len(frozen) == 1:
        return frozen[0]
    shape = [wide.shape[0], narrow.shape[1]]
    whole: Tensor = torch.ops.bitsandbytes.dequantize_4bit(*frozen, BLOCK, KIND, shape, narrow.dtype)
    return whole


def _parts(images: Tensor, wides: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Images (M, S) of all layers as those of each (M, R)."""
    return (images,) if len(wides) == 1 else images.split_with_sizes([wide.shape[1] for wide in wides], dim=1)


def _outputs(
    x: Tensor,
    frozen: Sequence[Tensor],
    biases: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
    scalings: Sequence[float],
) -> tuple[list[Tensor], Tensor]:
    """The outputs (…, N) of layers with the same input, and its images (M, S).

    Narrow is (S, K), wides are (N, R); frozen are one, two or three for each layer, biases as many as layers, or none.
    """
    rows = x.reshape(-1, x.shape[-1])
    images = rows @ narrow.t()
    each_bias: Sequence[Tensor | None] = biases or [None] * len(wides)
    outputs = []
    layers = zip(_parts(images, wides), wides, scalings, _each(frozen, wides), each_bias, strict=True)
    for image, wide, scaling, weight, bias in layers:
        if weight[0].dtype is STORED:
            output = product(rows, weight[0], weight[2]).addmm_(image, wide.t(), alpha=scaling)
            output = output if bias is None else output.add_(bias)
        else:
            output = _added(image, wide, scaling, bias).addmm_(rows, _whole(weight, narrow, wide).t())
        outputs.append(output.view(*x.shape[:-1], wide.shape[0]))
    return outputs, images


def _added(image: Tensor, wide: Tensor, scaling: float, bias: Tensor | None) -> Tensor:
    """What an adapter adds to its layer's output (M, N), and the bias."""
    return _scaled(image, wide.t(), scaling) if bias is None else torch.addmm(bias, image, wide.t(), alpha=scaling)


def _scaled(left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Their product times a number, in one kernel."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scaling)


def _outputs_alike(x: Tensor, frozen: Any, biases: Any, narrow: Tensor, wides: list[Tensor], scalings: Any) -> Any:
    outputs = [x.new_empty(*x.shape[:-1], wide.shape[0]) for wide in wides]
    return outputs, x.new_empty(x.numel() // x.shape[-1], narrow.shape[0])


def _gradients(
    gradients: Sequence[Tensor],
    x: Tensor,
    images: Tensor,
    frozen: Sequence[Tensor],
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
        of_wides.append(_scaled(upper.t(), image, scaling))
    of_narrow = of_images.t() @ rows
    if not input_wanted:
        return x.new_empty(0), of_narrow, of_wides
    return _of_rows(uppers, of_images, frozen, narrow, wides).view(x.shape), of_narrow, of_wides


def _of_rows(
    uppers: Sequence[Tensor], of_images: Tensor, frozen: Sequence[Tensor], narrow: Tensor, wides: Sequence[Tensor]
) -> Tensor:
    """The gradient of the rows (M, K)."""
    layers = list(zip(uppers, wides, _each(frozen, wides), strict=True))
    if frozen[0].dtype is STORED:
        each = (product_back(upper, turned, scale) for upper, _, (_, turned, scale) in layers)
        return reduce(Tensor.add_, each).addmm_(of_images, narrow)
    of_rows = of_images @ narrow
    for upper, wide, weight in layers:
        of_rows.addmm_(upper, _whole(weight, narrow, wide))
    return of_rows


def _gradients_alike(
    gradients: Any,
    x: Tensor,
    images: Any,
    frozen: Any,
    narrow: Tensor,
    wides: list[Tensor],
    scalings: Any,
    input_wanted: bool,
) -> Any:
    of_x = x.new_empty(x.shape if input_wanted else 0)
    return of_x, narrow.new_empty(narrow.shape), [wide.new_empty(wide.shape) for wide in wides]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[list[Tensor], Tensor]) -> None:
    x, frozen, biases, narrow, wides, scalings = inputs
    ctx.save_for_backward(x, output[1], narrow, *wides, *frozen)
    ctx.biases, ctx.scalings = len(biases), scalings


def _backward(ctx: Any, gradients: list[Tensor], _: Tensor) -> tuple[Any, ...]:
    x, images, narrow, *others = ctx.saved_tensors
    count, wanted = len(gradients), ctx.needs_input_grad[0]
    wides, frozen = others[:count], others[count:]
    whole = [gradient.contiguous() for gradient in gradients]
    of_x, of_narrow, of_wides = _lora_backward(whole, x, images, frozen, narrow, wides, ctx.scalings, wanted)
    return of_x if wanted else None, [None] * len(frozen), [None] * ctx.biases, of_narrow, of_wides, None


_lora = operator("lora", _outputs, _outputs_alike)
_lora_backward = operator("lora_backward", _gradients, _gradients_alike)
torch.library.register_autograd("convkit::lora", _backward, setup_context=_keep, lib=LIBRARY)

"""Fuse LoRA layers on top of peft's modules, with fewer passes over inputs and outputs.

peft computes `base(x) + lora_B(lora_A(x)) * scaling` as separate operations. On a GPU these passes cost a quarter of
the matrix products. The fused layers write the adapter's output first, and the large product then accumulates into it,
forward and backward, so no separate pass over the wide tensors is needed.

Layers with the same input, such as query, key and value in CLIP, read it once for all their adapters, and accumulate
its gradient in place. The backward pass needs only the input and its projection `x @ lora_A.T`.

Shape letters: M tokens, K input width, N output width, R rank, S sum of the ranks of all layers that share an input.
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

from convkit.train.models.kernels.autocast import autocast_dtype
from convkit.train.models.kernels.float8 import Float8Linear, float8_matmul, float8_matmul_backward
from convkit.train.models.kernels.float8_format import STORED
from convkit.train.models.kernels.library import LIBRARY, define_operator
from convkit.train.models.kernels.nf4 import BLOCK_SIZE, QUANT_TYPE


def fuse_lora(model: nn.Module) -> int:
    """Replace the forward pass of all linear layers with LoRA, and return how many were replaced.

    Layers with dropout, whose adapter has an input of its own, and peft's variants of LoRA are left as they are. The
    query, key and value layers of CLIP's attention share their input.
    """
    fused_classes = {Linear: FusedLinear, **_nf4_classes()}
    fused = [module for module in model.modules() if type(module) in fused_classes and _is_fusible(module)]
    for module in fused:
        module.__class__ = fused_classes[type(module)]
    for module in model.modules():
        if type(module) is CLIPAttention and _can_share_input(_qkv_projections(module)):
            module.__class__ = SharedAttention
    return len(fused)


def unfuse_lora(model: nn.Module) -> None:
    """Restore the forward passes of peft and transformers that `fuse_lora` replaced."""
    for module in model.modules():
        if isinstance(module, Fused):
            module.__class__ = type(module).__bases__[1]
        elif isinstance(module, SharedAttention):
            module.__class__ = CLIPAttention


def _is_fusible(module: Any) -> bool:
    name = module.active_adapters[0]
    return (
        isinstance(module.base_layer, nn.Linear)
        and len(module.active_adapters) == 1
        and not module.lora_variant
        and not module.lora_bias[name]
        and isinstance(module.lora_dropout[name], nn.Identity)
    )


def _qkv_projections(attention: Any) -> list[Any]:
    """Return the layers that read the input of an attention module."""
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def _can_share_input(layers: Sequence[nn.Module]) -> bool:
    """Return whether all layers are fused and of the same kind."""
    bases = [getattr(layer, "base_layer", layer) for layer in layers]
    kinds = {(type(layer), type(base), base.bias is None) for layer, base in zip(layers, bases, strict=True)}
    return isinstance(layers[0], Fused) and len(kinds) == 1


class Fused:
    """A LoRA forward pass that falls back to peft's without gradients, and for merged or disabled adapters."""

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.adapts:
            result: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return result
        return _lora_forward([self], x)[0]

    @property
    def adapts(self: Any) -> bool:
        return not self.disable_adapters and not self.merged and torch.is_grad_enabled()


class FusedLinear(Fused, Linear):  # type: ignore[misc]
    """A fused LoRA layer on unquantized or float8 weights."""


@cache
def _nf4_classes() -> dict[type, type]:
    """Return the fused class for 4-bit weights by peft's class, if bitsandbytes is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return {}
    from peft.tuners.lora.bnb import Linear4bit

    return {Linear4bit: type("FusedLinear4bit", (Fused, Linear4bit), {})}


class SharedAttention(CLIPAttention):  # type: ignore[misc]
    """CLIP's attention whose query, key and value read their input once, if all of them are fused."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        layers = _qkv_projections(self)
        if not (_can_share_input(layers) and all(layer.adapts for layer in layers)):
            return super().forward(hidden_states, attention_mask, **kwargs)
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        states = [part.view(heads).transpose(1, 2) for part in _lora_forward(layers, hidden_states)]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout if self.training else 0.0
        output, attention_weights = attend(self, *states, attention_mask, scaling=self.scale, dropout=dropout, **kwargs)
        return self.out_proj(output.reshape(hidden_states.shape).contiguous()), attention_weights


def _lora_forward(layers: Sequence[Any], x: Tensor) -> list[Tensor]:
    """Return the outputs (…, N) of layers of the same kind on one input (…, K)."""
    dtype = autocast_dtype(x)
    bases = [layer.base_layer for layer in layers]
    frozen = [tensor for base in bases for tensor in _frozen_tensors(base, dtype)]
    biases = [base.bias.to(dtype) for base in bases if base.bias is not None]
    named = [(layer, layer.active_adapters[0]) for layer in layers]
    narrows = [layer.lora_A[name].weight.to(dtype) for layer, name in named]
    narrow = torch.cat(narrows) if len(narrows) > 1 else narrows[0]
    wides = [layer.lora_B[name].weight.to(dtype) for layer, name in named]
    scalings = [layer.scaling[name] for layer, name in named]
    outputs: list[Tensor] = _lora(x.to(dtype), frozen, biases, narrow, wides, scalings)[0]
    return outputs


def _frozen_tensors(base: Any, dtype: torch.dtype) -> list[Tensor]:
    """Return the tensors of a layer's weight: itself, 4 bits and scales, or float8, its transpose and scales."""
    if isinstance(base, Float8Linear):
        return [base.weight, base.transposed, base.scale]
    packed = getattr(base.weight, "quant_state", None)
    return [base.weight.to(dtype)] if packed is None else [base.weight.data, packed.absmax]


def _per_layer(frozen: Sequence[Tensor], wides: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yield the `_frozen_tensors` of each layer."""
    count = len(frozen) // len(wides)
    return (frozen[start : start + count] for start in range(0, len(frozen), count))


def _dequantize(frozen: Sequence[Tensor], narrow: Tensor, wide: Tensor) -> Tensor:
    """Return the weight (N, K), dequantized to the adapter's dtype if it has 4 bits."""
    if len(frozen) == 1:
        return frozen[0]
    shape = [wide.shape[0], narrow.shape[1]]
    whole: Tensor = torch.ops.bitsandbytes.dequantize_4bit(*frozen, BLOCK_SIZE, QUANT_TYPE, shape, narrow.dtype)
    return whole


def _split_projections(projections: Tensor, wides: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Split the projections (M, S) of all layers into those of each (M, R)."""
    return (projections,) if len(wides) == 1 else projections.split_with_sizes([wide.shape[1] for wide in wides], dim=1)


def _forward(
    x: Tensor,
    frozen: Sequence[Tensor],
    biases: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
    scalings: Sequence[float],
) -> tuple[list[Tensor], Tensor]:
    """Compute the outputs of layers with the same input.

    Args:
        x: the input, (…, K).
        frozen: one, two or three tensors per layer, see `_frozen_tensors`.
        biases: one per layer, or none.
        narrow: the `lora_A` weights of all layers, (S, K).
        wides: the `lora_B` weight of each layer, (N, R).
        scalings: the LoRA scaling of each layer.

    Returns:
        The outputs (…, N), and the projections `x @ narrow.T` (M, S).
    """
    rows = x.reshape(-1, x.shape[-1])
    projections = rows @ narrow.t()
    each_bias: Sequence[Tensor | None] = biases or [None] * len(wides)
    outputs = []
    layers = zip(
        _split_projections(projections, wides), wides, scalings, _per_layer(frozen, wides), each_bias, strict=True
    )
    for projection, wide, scaling, weight, bias in layers:
        if weight[0].dtype is STORED:
            output = float8_matmul(rows, weight[0], weight[2]).addmm_(projection, wide.t(), alpha=scaling)
            output = output if bias is None else output.add_(bias)
        else:
            output = _adapter_output(projection, wide, scaling, bias).addmm_(
                rows, _dequantize(weight, narrow, wide).t()
            )
        outputs.append(output.view(*x.shape[:-1], wide.shape[0]))
    return outputs, projections


def _adapter_output(projection: Tensor, wide: Tensor, scaling: float, bias: Tensor | None) -> Tensor:
    """Return the adapter's part of a layer's output (M, N), with the bias."""
    return (
        _matmul_scaled(projection, wide.t(), scaling)
        if bias is None
        else torch.addmm(bias, projection, wide.t(), alpha=scaling)
    )


def _matmul_scaled(left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Return the product times a number, in one kernel."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scaling)


def _forward_fake(x: Tensor, frozen: Any, biases: Any, narrow: Tensor, wides: list[Tensor], scalings: Any) -> Any:
    outputs = [x.new_empty(*x.shape[:-1], wide.shape[0]) for wide in wides]
    return outputs, x.new_empty(x.numel() // x.shape[-1], narrow.shape[0])


def _lora_gradients(
    gradients: Sequence[Tensor],
    x: Tensor,
    projections: Tensor,
    frozen: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
    scalings: Sequence[float],
    input_wanted: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the gradients of the input (empty if not wanted), of `narrow` and of `wides`."""
    rows = x.reshape(-1, x.shape[-1])
    uppers = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
    projection_gradients, wide_gradients = torch.empty_like(projections), []
    layers = zip(
        uppers,
        wides,
        scalings,
        _split_projections(projections, wides),
        _split_projections(projection_gradients, wides),
        strict=True,
    )
    for upper, wide, scaling, projection, projection_gradient in layers:
        projection_gradient.addmm_(upper, wide, beta=0, alpha=scaling)  # beta=0 overwrites the uninitialized memory
        wide_gradients.append(_matmul_scaled(upper.t(), projection, scaling))
    narrow_gradient = projection_gradients.t() @ rows
    if not input_wanted:
        return x.new_empty(0), narrow_gradient, wide_gradients
    return (
        _input_gradient(uppers, projection_gradients, frozen, narrow, wides).view(x.shape),
        narrow_gradient,
        wide_gradients,
    )


def _input_gradient(
    uppers: Sequence[Tensor],
    projection_gradients: Tensor,
    frozen: Sequence[Tensor],
    narrow: Tensor,
    wides: Sequence[Tensor],
) -> Tensor:
    """Return the gradient of the input rows (M, K)."""
    layers = list(zip(uppers, wides, _per_layer(frozen, wides), strict=True))
    if frozen[0].dtype is STORED:
        each = (float8_matmul_backward(upper, transposed, scale) for upper, _, (_, transposed, scale) in layers)
        return reduce(Tensor.add_, each).addmm_(projection_gradients, narrow)
    row_gradients = projection_gradients @ narrow
    for upper, wide, weight in layers:
        row_gradients.addmm_(upper, _dequantize(weight, narrow, wide))
    return row_gradients


def _lora_gradients_fake(
    gradients: Any,
    x: Tensor,
    projections: Any,
    frozen: Any,
    narrow: Tensor,
    wides: list[Tensor],
    scalings: Any,
    input_wanted: bool,
) -> Any:
    input_gradient = x.new_empty(x.shape if input_wanted else 0)
    return input_gradient, narrow.new_empty(narrow.shape), [wide.new_empty(wide.shape) for wide in wides]


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[list[Tensor], Tensor]) -> None:
    x, frozen, biases, narrow, wides, scalings = inputs
    ctx.save_for_backward(x, output[1], narrow, *wides, *frozen)
    ctx.biases, ctx.scalings = len(biases), scalings


def _backward(ctx: Any, gradients: list[Tensor], _: Tensor) -> tuple[Any, ...]:
    x, projections, narrow, *others = ctx.saved_tensors
    count, wanted = len(gradients), ctx.needs_input_grad[0]
    wides, frozen = others[:count], others[count:]
    whole = [gradient.contiguous() for gradient in gradients]
    input_gradient, narrow_gradient, wide_gradients = _lora_backward(
        whole, x, projections, frozen, narrow, wides, ctx.scalings, wanted
    )
    return (
        input_gradient if wanted else None,
        [None] * len(frozen),
        [None] * ctx.biases,
        narrow_gradient,
        wide_gradients,
        None,
    )


_lora = define_operator("lora", _forward, _forward_fake)
_lora_backward = define_operator("lora_backward", _lora_gradients, _lora_gradients_fake)
torch.library.register_autograd("convkit::lora", _backward, setup_context=_save_inputs, lib=LIBRARY)

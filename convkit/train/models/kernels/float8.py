"""Frozen weights in 8 bits (float8, e4m3), and products with them: near twice bfloat16's speed, on GPUs that have them.

A row of what goes into a product has one scale, and so has a row of the weights: the largest number of each becomes the
largest of float8, 448. The product comes out in the type of what went in. A GPU sums it up by the faster of its two
ways, which was as near as the other (3.75 % of the norm, for normal numbers, 16,384 in a row). The backward pass
multiplies by the very numbers that the forward pass multiplied by, and rounds gradients likewise: rows of them, times
the scales of the weights' rows.

Shape letters: M rows, K width of the input, N of the output.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from convkit.errors import ConvkitError
from convkit.train.models.kernels.autocast import computed_in
from convkit.train.models.kernels.library import LIBRARY, operator

STORED = torch.float8_e4m3fn
LARGEST = torch.finfo(STORED).max
TINY = 1e-30
"""Rows of zeros have a scale, too."""
_SIDE = 16
"""What GPUs want widths to be a multiple of."""
_CAPABILITY = (8, 9)
"""Of the first GPUs that have products of float8."""


class Float8Linear(nn.Linear):
    """A frozen linear layer whose weight (N, K) is float8 times `scale` (N, 1), float32; `turned` (K, N) is its mirror.

    GPUs multiply rows of float8 by rows alone, so that the backward pass needs a copy that lies the other way round.
    """

    scale: Tensor
    turned: Tensor

    def take(self, weight: Tensor) -> None:
        """Round a weight (N, K), of any type."""
        packed, scale = rounded(weight)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("turned", packed.t().contiguous(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """(…, K) to (…, N), in the type of the input, or autocast's."""
        rows = input.reshape(-1, self.in_features).to(computed_in(input))
        output: Tensor = _product(rows, self.weight, self.turned, self.scale)
        output = output if self.bias is None else output + self.bias
        return output.view(*input.shape[:-1], self.out_features)


def shrink(layers: Iterable[nn.Module]) -> None:
    """Round frozen linear layers to float8; others, and those of widths that 16 does not divide, stay as they are.

    Raises:
        ConvkitError: the GPU has no products of float8.
    """
    _probe()
    for layer in layers:
        if type(layer) is nn.Linear and layer.in_features % _SIDE == layer.out_features % _SIDE == 0:
            layer.__class__ = Float8Linear
            assert isinstance(layer, Float8Linear)
            layer.take(layer.weight.data)


def _probe() -> None:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.get_device_capability() < _CAPABILITY:
            raise ConvkitError(f"--fp8: {name} has no float8; Ada, Hopper and later GPUs have. Leave it out.")
        ones = torch.ones(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16)
        try:
            product(ones, *rounded(ones))
        except Exception as error:  # whatever a library says: no C compiler for its kernel, no product for the machine
            raise ConvkitError(
                f"--fp8 does not work on {name} here: {' '.join(str(error).split())[:300]}. Leave it out."
            ) from None


def product(rows: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Rows (M, K) of any type times weights (N, K), float8, with scales (N, 1), float32: (M, N), in the rows' type."""
    return _multiplied(*rounded(rows), weight, scale).to(rows.dtype)


def product_back(upper: Tensor, turned: Tensor, scale: Tensor) -> Tensor:
    """The gradient of the rows (M, K), of that of the product (M, N) and in its type; turned (K, N) is the mirror."""
    packed, own = rounded(upper, scale)
    return _multiplied(packed, own, turned, scale.new_ones(len(turned), 1)).to(upper.dtype)


def rounded(rows: Tensor, factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows (M, K) in float8, and the scale of each (M, 1), float32.

    Args:
        factor: (K, 1), float32; what the numbers of each column are multiplied by first.
    """
    if rows.is_cuda:
        from convkit.train.models.kernels.triton import rounded as on_gpu

        return on_gpu(rows, factor)
    exact = rows.float() if factor is None else rows.float() * factor.view(-1)
    scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=TINY) / LARGEST
    return (exact / scale).to(STORED), scale


def _multiplied(left: Tensor, left_scale: Tensor, right: Tensor, right_scale: Tensor) -> Tensor:
    """Rows by rows; bfloat16 on a GPU, float32 elsewhere."""
    if not len(left):  # a pack in which nothing is learnt has none in its last layer
        return left_scale.new_empty(0, len(right))
    if left.is_cuda:
        kind = ScalingType.RowWise
        return scaled_mm(
            left, right.t(), left_scale, kind, right_scale.t(), kind, output_dtype=torch.bfloat16, use_fast_accum=True
        )
    with torch.autocast("cpu", enabled=False):  # which would round once more
        return (left.float() * left_scale) @ (right.float() * right_scale).t()


def _linear(rows: Tensor, weight: Tensor, turned: Tensor, scale: Tensor) -> Tensor:
    """`product`, whose gradient needs the weight's mirror."""
    return product(rows, weight, scale)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[2:])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return _product_back(gradient.contiguous(), *ctx.saved_tensors), None, None, None


_product = operator("float8_linear", _linear, lambda rows, weight, *_: rows.new_empty(len(rows), len(weight)))
_product_back = operator(
    "float8_linear_backward", product_back, lambda upper, turned, scale: upper.new_empty(len(upper), len(turned))
)
torch.library.register_autograd("convkit::float8_linear", _backward, setup_context=_keep, lib=LIBRARY)

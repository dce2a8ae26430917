"""SwiGLU activation of an MLP: silu of the gate half times the up half.

In compiled layers the backward pass is a custom operator. torch.compile would compute the gradients of both halves
element by element, and read all their inputs twice.

Shape letters: N width of a half.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

from convkit.train.models.kernels.library import define_operator


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up (…, N) from both halves side by side (…, 2 N)."""
    if not torch.compiler.is_compiling():  # --no_compile must work without the compiler that Triton needs
        return _product(gate_up)
    output: Tensor = _Swiglu.apply(gate_up)  # type: ignore[no-untyped-call]
    return output


def _product(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return up * F.silu(gate)


class _Swiglu(torch.autograd.Function):
    """SwiGLU that saves only its input for the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _product(gate_up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        input_gradient: Tensor = _backward(gradient, ctx.saved_tensors[0])
        return input_gradient


def _input_gradient(gradient: Tensor, gate_up: Tensor) -> Tensor:
    """Return the gradient of the input (…, 2 N), given that of the output (…, N)."""
    if gradient.is_cuda:
        from convkit.train.models.kernels.triton import swiglu_backward

        return swiglu_backward(gradient, gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.cat([torch.ops.aten.silu_backward(gradient * up, gate), gradient * F.silu(gate)], dim=-1)


_backward = define_operator(
    "swiglu_backward", _input_gradient, lambda gradient, gate_up: gate_up.new_empty(gate_up.shape)
)

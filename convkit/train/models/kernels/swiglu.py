"""SwiGLU, the middle of an MLP: one half of its numbers, through silu, times the other half.

In compiled layers its gradient is an operator of ours: torch's compiler puts the gradients of both halves together
number by number, and reads all that they are made of for each of the two.

Shape letters: N width of a half.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor

from convkit.train.models.kernels.library import operator


def swiglu(both: Tensor) -> Tensor:
    """What goes through silu and what that is multiplied by, side by side (…, 2 N), to (…, N)."""
    if not torch.compiler.is_compiling():  # --no_compile needs no compiler, which Triton's kernel does
        return _product(both)
    output: Tensor = _Swiglu.apply(both)  # type: ignore[no-untyped-call]
    return output


def _product(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return up * F.silu(gate)


class _Swiglu(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        return _product(both)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        of_both: Tensor = _backward(gradient, ctx.saved_tensors[0])
        return of_both


def _gradient(gradient: Tensor, both: Tensor) -> Tensor:
    """The gradient (…, 2 N), of that of the output (…, N)."""
    if gradient.is_cuda:
        from convkit.train.models.kernels.triton import swiglu_backward

        return swiglu_backward(gradient, both)
    gate, up = both.chunk(2, dim=-1)
    return torch.cat([torch.ops.aten.silu_backward(gradient * up, gate), gradient * F.silu(gate)], dim=-1)


_backward = operator("swiglu_backward", _gradient, lambda gradient, both: both.new_empty(both.shape))

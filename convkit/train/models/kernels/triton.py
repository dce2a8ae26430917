"""Triton kernels for GPUs. Triton is installed with torch on platforms that support it."""
# ruff: noqa: ANN001, ANN202, N803 (Triton's compiler accepts only its own annotations)

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.train.models.kernels.float8_format import LARGEST, STORED, TINY

_VALUES_PER_WARP = 1024
"""32 for each thread; rows of 3,072 to 16,384 values then took little longer than reading and writing them."""


def quantize_rows(rows: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """Quantize as `float8.quantize_rows` does, reading each row once.

    Args:
        rows: (M, K), of any dtype.
        factor: (K, 1), float32; columns are multiplied by it first.

    Returns:
        The rows in float8, and their scales (M, 1) in float32.
    """
    rows = rows.contiguous()
    count, width = rows.shape
    packed = torch.empty_like(rows, dtype=STORED)
    scale = rows.new_empty(count, 1, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    warps = max(4, min(16, block // _VALUES_PER_WARP))
    given = rows if factor is None else factor
    with torch.cuda.device(rows.device):
        _quantize_rows[(count,)](
            rows,
            given,
            packed,
            scale,
            width,
            1 / LARGEST,
            TINY,
            SCALED=factor is not None,
            BLOCK=block,
            num_warps=warps,
        )
    return packed, scale


@triton.jit  # type: ignore[untyped-decorator]
def _quantize_rows(rows, factor, packed, scale, width, unit, tiny, SCALED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    exact = tl.load(rows + row * width + column, mask=inside, other=0).to(tl.float32)
    if SCALED:
        exact *= tl.load(factor + column, mask=inside, other=0)
    own = tl.maximum(tl.max(tl.abs(exact)), tiny) * unit
    tl.store(scale + row, own)
    tl.store(packed + row * width + column, (exact / own).to(tl.float8e4nv), mask=inside)


_VALUES_PER_PROGRAM = 1024
"""Values of each half: 16 bytes for each thread of four warps."""


def swiglu_backward(gradient: Tensor, gate_up: Tensor) -> Tensor:
    """Return the gradient of the input of `swiglu`, reading and writing each value once.

    Args:
        gradient: of the output, (…, N).
        gate_up: the input, (…, 2 N).

    Returns:
        (…, 2 N).
    """
    gradient, gate_up = gradient.contiguous(), gate_up.contiguous()
    result = torch.empty_like(gate_up)
    width = gradient.shape[-1]
    grid = (gradient.numel() // width, triton.cdiv(width, _VALUES_PER_PROGRAM))
    if grid[0]:
        with torch.cuda.device(gradient.device):
            _swiglu_backward[grid](gradient, gate_up, result, width, BLOCK=_VALUES_PER_PROGRAM)
    return result


@triton.jit  # type: ignore[untyped-decorator]
def _swiglu_backward(gradient, gate_up, result, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gates = row * 2 * width + column
    ups = gates + width
    upper = tl.load(gradient + row * width + column, mask=inside).to(tl.float32)
    gate = tl.load(gate_up + gates, mask=inside).to(tl.float32)
    up = tl.load(gate_up + ups, mask=inside).to(tl.float32)
    share = tl.sigmoid(gate)
    tl.store(result + gates, upper * up * share * (1 + gate * (1 - share)), mask=inside)
    tl.store(result + ups, upper * gate * share, mask=inside)

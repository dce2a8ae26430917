"""Kernels for GPUs, in Triton, which torch brings along where it can use one."""
# ruff: noqa: ANN001, ANN202, N803 (Triton's compiler takes no annotations but its own)

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.train.models.kernels.float8 import LARGEST, STORED, TINY

_NUMBERS_OF_A_WARP = 1024
"""32 for each of its threads; a row of 3,072 to 16,384 numbers then took little more than reading and writing it."""


def rounded(rows: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `convkit.train.models.kernels.float8.rounded`; a row is read once, and no product has to wait for more."""
    rows = rows.contiguous()
    count, width = rows.shape
    packed = torch.empty_like(rows, dtype=STORED)
    scale = rows.new_empty(count, 1, dtype=torch.float32)
    block = triton.next_power_of_2(width)
    warps = max(4, min(16, block // _NUMBERS_OF_A_WARP))
    given = rows if factor is None else factor
    with torch.cuda.device(rows.device):
        _rounded[(count,)](
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
def _rounded(rows, factor, packed, scale, width, unit, tiny, SCALED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    exact = tl.load(rows + row * width + column, mask=inside, other=0).to(tl.float32)
    if SCALED:
        exact *= tl.load(factor + column, mask=inside, other=0)
    own = tl.maximum(tl.max(tl.abs(exact)), tiny) * unit
    tl.store(scale + row, own)
    tl.store(packed + row * width + column, (exact / own).to(tl.float8e4nv), mask=inside)


_NUMBERS_OF_A_PROGRAM = 1024
"""Of each half: 16 bytes for each thread of four warps."""


def swiglu_backward(gradient: Tensor, both: Tensor) -> Tensor:
    """See `convkit.train.models.kernels.swiglu`; everything is read and written once."""
    gradient, both = gradient.contiguous(), both.contiguous()
    result = torch.empty_like(both)
    width = gradient.shape[-1]
    grid = (gradient.numel() // width, triton.cdiv(width, _NUMBERS_OF_A_PROGRAM))
    if grid[0]:
        with torch.cuda.device(gradient.device):
            _swiglu_backward[grid](gradient, both, result, width, BLOCK=_NUMBERS_OF_A_PROGRAM)
    return result


@triton.jit  # type: ignore[untyped-decorator]
def _swiglu_backward(gradient, both, result, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gates = row * 2 * width + column
    ups = gates + width
    upper = tl.load(gradient + row * width + column, mask=inside).to(tl.float32)
    gate = tl.load(both + gates, mask=inside).to(tl.float32)
    up = tl.load(both + ups, mask=inside).to(tl.float32)
    share = tl.sigmoid(gate)
    tl.store(result + gates, upper * up * share * (1 + gate * (1 - share)), mask=inside)
    tl.store(result + ups, upper * gate * share, mask=inside)

"""A pack's documents side by side, for kernels of attention that know no other way.

What is filled up stands behind a document, where causal attention lets none of its tokens look; and no gradient comes
from there.

Shape letters: T tokens of the pack, N documents, R places of each, H heads, D width of a head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_EVERY = 128
"""R is a multiple of it: kernels are prepared for each N and R."""
_FILLING = 0.1
"""At most so many more places than tokens: they take memory as these do."""


def places(lengths: Sequence[int]) -> dict[str, Any]:
    """Where tokens go, if the lengths of a pack's documents are alike enough; else nothing.

    Returns:
        `stack_rows`, N; `stack_from` (N * R), the token of each place, -1 for none; `stack_at` (T), the place of each
        token.
    """
    width = -(-max(lengths) // _EVERY) * _EVERY
    if width * len(lengths) > (1 + _FILLING) * sum(lengths):
        return {}
    at = torch.cat([torch.arange(length) + width * row for row, length in enumerate(lengths)])
    back = torch.full((width * len(lengths),), -1)
    back[at] = torch.arange(len(at))
    return {"stack_rows": len(lengths), "stack_from": back, "stack_at": at}


def stacked(
    attend: Callable[[Tensor, Tensor, Tensor, float | None], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    back: Tensor,
    at: Tensor,
    rows: int,
    scaling: float | None,
) -> Tensor:
    """Attend within documents.

    Args:
        attend: causal attention of (N, H, R, D).
        query: (1, H, T, D), as are key and value.
        key: see there.
        value: see there.
        back: `stack_from` of `places`.
        at: `stack_at`.
        rows: `stack_rows`.
        scaling: of the scores.

    Returns:
        (1, T, H, D).
    """

    def side_by_side(x: Tensor) -> Tensor:
        moved = _moved(x[0].transpose(0, 1), back, at)
        return moved.view(rows, -1, *moved.shape[1:]).transpose(1, 2)

    output = attend(side_by_side(query), side_by_side(key), side_by_side(value), scaling)
    return _moved(output.transpose(1, 2).flatten(0, 1), at, back).unsqueeze(0)


def _moved(x: Tensor, order: Tensor, reverse: Tensor) -> Tensor:
    moved: Tensor = _Moved.apply(x, order, reverse)  # type: ignore[no-untyped-call]
    return moved


class _Moved(torch.autograd.Function):
    """Rows of a tensor in another order, zeros where the order says -1; its gradient goes by the reverse order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, reverse)
        return _taken(x, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _taken(gradient, ctx.saved_tensors[1]), None, None


def _taken(x: Tensor, order: Tensor) -> Tensor:
    return x[order.clamp(min=0)].masked_fill((order < 0)[:, None, None], 0)

"""Pad a packed sequence to a batch for cuDNN causal attention, and unpad the result.

Padding follows each document, so causal attention hides it from the document's tokens, and it receives no gradient.

Shape letters: T tokens of the packed sequence, N documents, R padded document length, H heads, D head width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LENGTH_MULTIPLE = 128
"""R is a multiple of this number, because cuDNN prepares its kernels for each N and R."""
_MAX_PADDING = 0.1
"""Largest share of padding, relative to the tokens: padding takes as much memory as tokens do."""


class PaddedIndices(NamedTuple):
    """Indices that pad a packed sequence, and that unpad it again."""

    pad: Tensor
    """(N, R): the token at each padded position, or -1 for padding."""
    unpad: Tensor
    """(T): the padded position of each token."""


def padded_indices(lengths: Sequence[int]) -> dict[str, Any]:
    """Return the indices of `PaddedIndices`, or nothing if the documents' lengths differ too much.

    Returns:
        `pad_index` (N, R) and `unpad_index` (T), as keys of a batch.
    """
    width = -(-max(lengths) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    if width * len(lengths) > (1 + _MAX_PADDING) * sum(lengths):
        return {}
    unpad = torch.cat([torch.arange(length) + width * row for row, length in enumerate(lengths)])
    pad = torch.full((width * len(lengths),), -1)
    pad[unpad] = torch.arange(len(unpad))
    return {"pad_index": pad.view(len(lengths), width), "unpad_index": unpad}


def attend_padded(
    attend: Callable[[Tensor, Tensor, Tensor, float | None], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    indices: PaddedIndices,
    scaling: float | None,
) -> Tensor:
    """Attend within the documents of a packed sequence.

    Args:
        attend: causal attention on (N, H, R, D).
        query: (1, H, T, D).
        key: (1, H, T, D).
        value: (1, H, T, D).
        indices: from `padded_indices`.
        scaling: factor on the attention scores.

    Returns:
        (1, T, H, D).
    """
    rows, pad = len(indices.pad), indices.pad.flatten()

    def padded(x: Tensor) -> Tensor:
        batch = _reorder(x[0].transpose(0, 1), pad, indices.unpad)
        return batch.view(rows, -1, *batch.shape[1:]).transpose(1, 2)

    output = attend(padded(query), padded(key), padded(value), scaling)
    return _reorder(output.transpose(1, 2).flatten(0, 1), indices.unpad, pad).unsqueeze(0)


def _reorder(x: Tensor, order: Tensor, reverse: Tensor) -> Tensor:
    reordered: Tensor = _Reorder.apply(x, order, reverse)  # type: ignore[no-untyped-call]
    return reordered


class _Reorder(torch.autograd.Function):
    """Reorder the rows of a tensor, with zeros where the index is -1; the gradient uses the reverse index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, reverse)
        return _gather(x, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradient, ctx.saved_tensors[1]), None, None


def _gather(x: Tensor, order: Tensor) -> Tensor:
    return x[order.clamp(min=0)].masked_fill((order < 0)[:, None, None], 0)

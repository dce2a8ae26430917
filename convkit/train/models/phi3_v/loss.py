"""Cross-entropy at the supervised tokens only.

A document of 2,500 tokens has some ten supervised ones. Logits of the others, 32,064 float32 numbers each, would only
use memory. With many supervised tokens, logits are computed in chunks and recomputed in the backward pass.

Shape letters: T tokens, P supervised tokens, D width.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_CHUNK_SIZE = 2048


def cross_entropy_at(hidden: Tensor, labels: Tensor, indices: Tensor, head: nn.Module, items: int | None) -> Tensor:
    """Return the cross-entropy of the next tokens, computed in float32.

    Args:
        hidden: (1, P, D), the hidden states at `indices`.
        labels: (1, T), unshifted.
        indices: (P), the tokens whose next token is supervised.
        head: the output head, (P, D) to logits.
        items: the divisor of the summed loss. Default: P.

    Raises:
        ValueError: there is more than one sequence.
    """
    if len(hidden) != 1:
        raise ValueError(
            f"logits_to_keep with labels supports one sequence, not {len(hidden)}: leave logits_to_keep out"
        )
    rows, targets = hidden[0], labels[0, indices + 1]
    chunks = list(zip(torch.split(rows, _CHUNK_SIZE), torch.split(targets, _CHUNK_SIZE), strict=True))
    if len(chunks) == 1:
        total = _sum(head, *chunks[0])
    else:
        total = sum((checkpoint(_sum, head, *part, use_reentrant=False) for part in chunks), rows.new_zeros(()).float())
    return total / (items or max(1, len(indices)))


def _sum(head: nn.Module, rows: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(rows).float(), targets, reduction="sum")

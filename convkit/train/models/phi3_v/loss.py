"""The loss at the places where something is learnt, and nothing at all at the others.

In a document of 2,500 tokens some ten are learnt: logits of the others, 32,064 numbers each in float32, would only fill
memory. Where many are learnt, their logits are made a part at a time, and again for the backward pass.

Shape letters: T tokens, P places that are learnt, D width.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_AT_ONCE = 2048


def cross_entropy_at(hidden: Tensor, labels: Tensor, places: Tensor, head: nn.Module, items: int | None) -> Tensor:
    """Cross-entropy in float32.

    Args:
        hidden: (1, P, D), at the places.
        labels: (1, T), unshifted.
        places: (P), those whose next token is learnt.
        items: what the sum is divided by; P if not given.

    Raises:
        ValueError: there are several sequences, for which places would say too little.
    """
    if len(hidden) != 1:
        raise ValueError(f"the loss at places is taken of one sequence, not of {len(hidden)}: leave logits_to_keep out")
    rows, targets = hidden[0], labels[0, places + 1]
    parts = list(zip(torch.split(rows, _AT_ONCE), torch.split(targets, _AT_ONCE), strict=True))
    if len(parts) == 1:
        total = _sum(head, *parts[0])
    else:
        total = sum((checkpoint(_sum, head, *part, use_reentrant=False) for part in parts), rows.new_zeros(()).float())
    return total / (items or max(1, len(places)))


def _sum(head: nn.Module, rows: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(rows).float(), targets, reduction="sum")

"""Attention over documents laid end to end, without a mask of tokens times tokens.

`register()` makes the name `varlen` known to transformers (`attn_implementation="varlen"`). With `cu_seq_lens_q` among
the arguments a document attends to itself alone: on a GPU in half precision by torch's variable-length kernels, or by
cuDNN's on Hopper, which want documents side by side, where these are of like lengths; else by a loop of plain causal
attention. Without, it is transformers' sdpa.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its name everywhere)
from torch import Tensor, nn
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from convkit.train.models.kernels.pad_packed import stacked

VARLEN = "varlen"
_HALF = (torch.float16, torch.bfloat16)
_HOPPER, _AMPERE = (9, 0), (8, 0)
"""Older GPUs have no variable-length kernels."""


def register() -> None:
    """Make `varlen` an attention implementation of transformers."""
    # Its backward pass gave gradients that were not numbers, now and then, where masks are padded (H100, torch 2.11).
    torch.backends.cuda.enable_cudnn_sdp(False)
    AttentionInterface.register(VARLEN, varlen_attention_forward)
    AttentionMaskInterface.register(VARLEN, sdpa_mask)


def varlen_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    stack_from: Tensor | None = None,
    stack_at: Tensor | None = None,
    stack_rows: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend (B, H, T, D); packed only with B = 1 and without a cache. Returns (B, T, H, D).

    Args:
        module: of the model.
        query: and key and value; these may have fewer heads.
        attention_mask: where documents are not packed.
        dropout: likewise.
        scaling: of the scores.
        cu_seq_lens_q: where documents begin, and the end.
        max_length_q: the longest of them.
        stack_from: see `convkit.train.models.kernels.pad_packed.places`.
        stack_at: likewise.
        stack_rows: likewise.
        kwargs: what else the model says.
    """
    if cu_seq_lens_q is None and attention_mask is None and not dropout and _is_whole(module, query, key):
        return _cudnn(query, key, value, scaling, causal=False).transpose(1, 2).contiguous(), None
    if cu_seq_lens_q is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return output, None
    if dropout:
        raise ValueError("packed attention has no dropout; set attention_dropout to 0")
    if torch.is_autocast_enabled(query.device.type):  # the kernels are not among what autocast knows
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(half), key.to(half), value.to(half)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if stack_from is not None and stack_at is not None and _suits_cudnn(query):
        return stacked(_cudnn, query, key, value, stack_from, stack_at, stack_rows, scaling), None
    if query.is_cuda and query.dtype in _HALF and torch.cuda.get_device_capability(query.device) >= _AMPERE:
        longest = max_length_q if max_length_q is not None else int(cu_seq_lens_q.diff().max())
        return _kernel(query, key, value, cu_seq_lens_q, longest, scaling), None
    return packed_sdpa(query, key, value, cu_seq_lens_q, scaling), None


def _is_whole(module: nn.Module, query: Tensor, key: Tensor) -> bool:
    """Whether everything attends to everything, as in CLIP, and cuDNN may do it."""
    return not getattr(module, "is_causal", True) and query.shape[1] == key.shape[1] and _suits_cudnn(query)


def _suits_cudnn(query: Tensor) -> bool:
    """Whether cuDNN's kernels were made for it; their sums come in any order."""
    return (
        query.is_cuda
        and query.dtype in _HALF
        and not torch.are_deterministic_algorithms_enabled()
        and torch.cuda.get_device_capability(query.device) >= _HOPPER
    )


def _cudnn(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, causal: bool = True) -> Tensor:
    """Attention without a mask, by kernels that take two thirds of the time of those that torch would choose.

    They are prepared for each shape anew, which takes a tenth of a second. Called by name, since `register` leaves
    them out of torch's choice.
    """
    attend = torch.ops.aten._scaled_dot_product_cudnn_attention
    output: Tensor = attend(query, key, value, None, True, 0.0, causal, False, scale=scaling)[0]
    return output


def packed_sdpa(query: Tensor, key: Tensor, value: Tensor, cu_seq_lens: Tensor, scaling: float | None) -> Tensor:
    """Causal attention, one document after the other: what the kernels compute, on any device and dtype."""
    documents = [
        F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], is_causal=True, scale=scaling
        )
        for start, end in pairwise(cu_seq_lens.tolist())
    ]
    return torch.cat(documents, dim=2).transpose(1, 2).contiguous()


def _kernel(query: Tensor, key: Tensor, value: Tensor, cu: Tensor, longest: int, scaling: float | None) -> Tensor:
    # Compiled, the turned halves are written so in the first place.
    tokens = [query[0].transpose(0, 1).contiguous(), key[0].transpose(0, 1).contiguous(), value[0].transpose(0, 1)]
    attend: Callable[..., Any] = varlen.varlen_attn
    output: Tensor = attend(*tokens, cu, cu, longest, longest, window_size=(-1, 0), scale=scaling)
    return output.unsqueeze(0)

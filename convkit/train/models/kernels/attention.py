"""Attention over packed sequences, without a quadratic attention mask.

`register()` adds the attention implementation `varlen` to transformers (`attn_implementation="varlen"`). Given
`cu_seq_lens_q`, each document attends to itself alone:

- in half precision on a GPU, with torch's variable-length kernels;
- on Hopper, if the documents have similar lengths, padded to a batch with cuDNN's kernels;
- otherwise with a loop of causal attention.

Without `cu_seq_lens_q` it is transformers' sdpa, or cuDNN for full attention on Hopper.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from convkit.train.models.kernels.pad_packed import PaddedIndices, attend_padded

VARLEN = "varlen"
_HALF = (torch.float16, torch.bfloat16)
_HOPPER, _AMPERE = (9, 0), (8, 0)
"""Compute capabilities; GPUs before Ampere have no variable-length kernels."""


def register() -> None:
    """Register `varlen` as an attention implementation of transformers."""
    # Its backward pass sometimes gave NaN gradients with padded masks (H100, torch 2.11).
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
    pad_index: Tensor | None = None,
    unpad_index: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention with the interface of transformers; packed sequences need B = 1 and no cache.

    Args:
        module: the attention module of the model.
        query: (B, H, T, D).
        key: (B, H, T, D), possibly with fewer heads.
        value: (B, H, T, D), possibly with fewer heads.
        attention_mask: mask of sequences that are not packed.
        dropout: probability for sequences that are not packed.
        scaling: factor on the attention scores.
        cu_seq_lens_q: cumulative lengths of the packed documents, (documents + 1).
        max_length_q: length of the longest document.
        pad_index: `PaddedIndices.pad`, if the documents may be padded to a batch.
        unpad_index: `PaddedIndices.unpad`.
        kwargs: further arguments for transformers' sdpa.

    Returns:
        (B, T, H, D), and None for the attention weights.

    Raises:
        ValueError: dropout is requested for a packed sequence.
    """
    if cu_seq_lens_q is None and attention_mask is None and not dropout and _is_full_attention(module, query, key):
        return _cudnn_attention(query, key, value, scaling, causal=False).transpose(1, 2).contiguous(), None
    if cu_seq_lens_q is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return output, None
    if dropout:
        raise ValueError("packed attention has no dropout; set attention_dropout to 0")
    if torch.is_autocast_enabled(query.device.type):  # autocast does not cover these kernels
        half = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(half), key.to(half), value.to(half)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if pad_index is not None and unpad_index is not None and _supports_cudnn(query):
        indices = PaddedIndices(pad_index, unpad_index)
        return attend_padded(_cudnn_attention, query, key, value, indices, scaling), None
    if query.is_cuda and query.dtype in _HALF and torch.cuda.get_device_capability(query.device) >= _AMPERE:
        longest = max_length_q if max_length_q is not None else int(cu_seq_lens_q.diff().max())
        return _flash_varlen(query, key, value, cu_seq_lens_q, longest, scaling), None
    return packed_sdpa(query, key, value, cu_seq_lens_q, scaling), None


def _is_full_attention(module: nn.Module, query: Tensor, key: Tensor) -> bool:
    """Return whether each token attends to all tokens, as in CLIP, and cuDNN supports it."""
    return not getattr(module, "is_causal", True) and query.shape[1] == key.shape[1] and _supports_cudnn(query)


def _supports_cudnn(query: Tensor) -> bool:
    """Return whether cuDNN supports a query; its kernels are not deterministic."""
    return (
        query.is_cuda
        and query.dtype in _HALF
        and not torch.are_deterministic_algorithms_enabled()
        and torch.cuda.get_device_capability(query.device) >= _HOPPER
    )


def _cudnn_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, causal: bool = True) -> Tensor:
    """Compute attention without a mask, in two thirds of the time of the kernels that torch would choose.

    The kernels are prepared for each new shape, which takes a tenth of a second. They are called by name, because
    `register` excludes them from torch's choice.
    """
    attend = torch.ops.aten._scaled_dot_product_cudnn_attention
    output: Tensor = attend(query, key, value, None, True, 0.0, causal, False, scale=scaling)[0]
    return output


def packed_sdpa(query: Tensor, key: Tensor, value: Tensor, cu_seq_lens: Tensor, scaling: float | None) -> Tensor:
    """Compute causal attention of each document in a loop, as a reference for the kernels on any device and dtype."""
    documents = [
        F.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], is_causal=True, scale=scaling
        )
        for start, end in pairwise(cu_seq_lens.tolist())
    ]
    return torch.cat(documents, dim=2).transpose(1, 2).contiguous()


def _flash_varlen(query: Tensor, key: Tensor, value: Tensor, cu: Tensor, longest: int, scaling: float | None) -> Tensor:
    # In compiled layers, the transposed halves are written in this layout at once.
    tokens = [query[0].transpose(0, 1).contiguous(), key[0].transpose(0, 1).contiguous(), value[0].transpose(0, 1)]
    attend: Callable[..., Any] = varlen.varlen_attn
    output: Tensor = attend(*tokens, cu, cu, longest, longest, window_size=(-1, 0), scale=scaling)
    return output.unsqueeze(0)

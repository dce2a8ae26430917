"""Padding a packed sequence to a batch, and unpadding the result."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from convkit.train.models.kernels.attention import packed_sdpa
from convkit.train.models.kernels.pad_packed import PaddedIndices, attend_padded, padded_indices

SIMILAR_LENGTHS = st.integers(121, 128).flatmap(
    lambda longest: st.lists(st.integers(118, longest), min_size=1, max_size=4)
)


@given(SIMILAR_LENGTHS)
def test_attention_on_the_padded_batch_equals_attention_on_the_packed_sequence(lengths: list[int]) -> None:
    found = padded_indices(lengths)
    total = sum(lengths)
    generator = torch.Generator().manual_seed(total)

    def random() -> Tensor:
        return torch.randn(1, 2, total, 4, dtype=torch.float64, generator=generator)

    query, key, value = (random().requires_grad_() for _ in range(3))
    upper = random().transpose(1, 2)

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        assert query.shape == (len(lengths), 2, 128, 4)
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)

    indices = PaddedIndices(found["pad_index"], found["unpad_index"])
    output = attend_padded(attend, query, key, value, indices, 0.3)
    expected = packed_sdpa(query, key, value, torch.tensor([0, *lengths]).cumsum(0), 0.3)
    torch.testing.assert_close(output, expected)
    ours, theirs = (torch.autograd.grad(y, (query, key, value), upper) for y in (output, expected))
    torch.testing.assert_close(ours, theirs)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_each_token_has_a_padded_position_if_little_padding_is_needed(lengths: list[int]) -> None:
    found = padded_indices(lengths)
    total, width = sum(lengths), -(-max(lengths) // 128) * 128
    assert bool(found) == (width * len(lengths) <= 1.1 * total)
    if found:
        pad, unpad = found["pad_index"], found["unpad_index"]
        assert pad.shape == (len(lengths), width)
        assert pad.flatten()[unpad].tolist() == list(range(total))
        assert int((pad == -1).sum()) == width * len(lengths) - total
        rows = unpad // width
        assert rows.bincount(minlength=len(lengths)).tolist() == lengths
        assert (rows.diff() >= 0).all()

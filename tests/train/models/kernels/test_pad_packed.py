"""Documents side by side, and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from convkit.train.models.kernels.attention import packed_sdpa
from convkit.train.models.kernels.pad_packed import places, stacked

ALIKE = st.integers(121, 128).flatmap(lambda longest: st.lists(st.integers(118, longest), min_size=1, max_size=4))


@given(ALIKE)
def test_attention_side_by_side_is_that_of_the_pack(lengths: list[int]) -> None:
    found = places(lengths)
    total = sum(lengths)
    generator = torch.Generator().manual_seed(total)

    def random() -> Tensor:
        return torch.randn(1, 2, total, 4, dtype=torch.float64, generator=generator)

    query, key, value = (random().requires_grad_() for _ in range(3))
    upper = random().transpose(1, 2)

    def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        assert query.shape == (len(lengths), 2, 128, 4)
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)

    output = stacked(attend, query, key, value, found["stack_from"], found["stack_at"], found["stack_rows"], 0.3)
    expected = packed_sdpa(query, key, value, torch.tensor([0, *lengths]).cumsum(0), 0.3)
    torch.testing.assert_close(output, expected)
    ours, theirs = (torch.autograd.grad(y, (query, key, value), upper) for y in (output, expected))
    torch.testing.assert_close(ours, theirs)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_each_token_has_a_place_where_little_is_filled_up(lengths: list[int]) -> None:
    found = places(lengths)
    total, width = sum(lengths), -(-max(lengths) // 128) * 128
    assert bool(found) == (width * len(lengths) <= 1.1 * total)
    if found:
        assert found["stack_rows"] == len(lengths)
        assert len(found["stack_from"]) == width * len(lengths)
        assert found["stack_from"][found["stack_at"]].tolist() == list(range(total))
        assert int((found["stack_from"] == -1).sum()) == width * len(lengths) - total
        rows = found["stack_at"] // width
        assert rows.bincount(minlength=len(lengths)).tolist() == lengths
        assert (rows.diff() >= 0).all()

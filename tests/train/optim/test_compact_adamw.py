"""AdamW on bfloat16 weights with their lower halves (`--optim adamw_bf16`)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convkit.errors import ConvkitError
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.adamw import BETAS, EPS, AdamW, CompactAdamW, _join_halves, _split_halves
from convkit.train.optim.sharding.base import MOMENTS
from tests.train.helpers import runs


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127)))
def test_both_halves_of_a_weight_join_to_the_exact_weight(numbers: list[float]) -> None:
    master = torch.tensor(numbers, dtype=torch.float32)
    high, low = _split_halves(master)
    assert torch.equal(_join_halves(high, low), master)
    assert ((high.float() - master).abs() <= master.abs() * 2**-8 + 1e-40).all()


def test_the_compact_optimizer_updates_like_torch() -> None:
    torch.manual_seed(0)
    start = [torch.randn(8, 4).bfloat16(), torch.randn(5).bfloat16()]
    ours = [nn.Parameter(tensor.clone()) for tensor in start]
    theirs = [nn.Parameter(tensor.float()) for tensor in start]
    groups = [
        [{"params": [p], "weight_decay": decay} for p, decay in zip(s, (0.1, 0.0), strict=True)] for s in (ours, theirs)
    ]
    compact, exact = CompactAdamW(groups[0], 1e-3), AdamW(groups[1], lr=1e-3, betas=BETAS, eps=EPS, foreach=False)
    for _ in range(50):
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn_like(mine)
            mine.grad.copy_(gradient)  # type: ignore[union-attr]
            other.grad = gradient.float()
        assert float(compact.clip(1.0)) == pytest.approx(float(exact.clip(1.0)), rel=1e-4)
        compact.step()
        exact.step()
        compact.zero_grad()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved = (other - first.float()).abs().mean()
        assert (compact.full_state(mine)["weight"] - other).abs().mean() < 0.01 * moved  # only the moments are rounded
        assert torch.equal(mine, _split_halves(compact.full_state(mine)["weight"].flatten())[0].view_as(mine))
        assert moved > 0.005


def test_parameters_stay_aligned_to_16_bytes_after_one_of_odd_size() -> None:
    """GPU kernels need this alignment for vectorized loads of 16 bytes."""
    odd, even = nn.Parameter(torch.randn(1).bfloat16()), nn.Parameter(torch.randn(16).bfloat16())
    start = odd.detach().clone(), even.detach().clone()
    CompactAdamW([{"params": [odd, even], "weight_decay": 0.0}], 1e-3)
    assert even.storage_offset() % 8 == 0 and even.grad is not None and even.grad.storage_offset() % 8 == 0
    assert torch.equal(odd, start[0]) and torch.equal(even, start[1])


def test_moments_are_restored_in_place() -> None:
    """torch keeps the step count on the GPU for its fused kernel, and on the CPU for its loop."""
    parameter = nn.Parameter(torch.randn(8))
    optimizer = AdamW([parameter], lr=1e-3, foreach=False)
    parameter.grad = torch.randn(8)
    optimizer.step()
    made, whole = optimizer.state[parameter], optimizer.full_state(parameter)
    places = {kind: made[kind].data_ptr() for kind in MOMENTS}
    optimizer.load_state(parameter, {kind: tensor.clone() + 1 for kind, tensor in whole.items()})
    assert {kind: optimizer.state[parameter][kind].data_ptr() for kind in MOMENTS} == places
    assert optimizer.state[parameter]["step"] == 2


def test_the_compact_optimizer_resumes_from_its_full_state() -> None:
    torch.manual_seed(0)
    first, second = (nn.Parameter(torch.randn(8, 4).bfloat16()) for _ in range(2))
    one, two = (CompactAdamW([{"params": [p], "weight_decay": 0.1}], 1e-3) for p in (first, second))
    gradients = torch.randn(6, 8, 4).bfloat16()
    for gradient in gradients[:3]:
        first.grad.copy_(gradient)  # type: ignore[union-attr]
        one.step()
    two.load_state(second, {kind: tensor.clone() for kind, tensor in one.full_state(first).items()})
    for gradient in gradients[3:]:
        for parameter, optimizer in ((first, one), (second, two)):
            parameter.grad.copy_(gradient)  # type: ignore[union-attr]
            optimizer.step()
    for kind, tensor in one.full_state(first).items():
        assert torch.equal(two.full_state(second)[kind], tensor), kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf16": False}, r"needs bfloat16\. Add --bf16"),
        ({"fp16": True}, r"needs bfloat16\. Add --bf16"),
        ({"bf16": True, "fsdp": True}, r"cannot be combined with --fsdp\. Leave --fsdp out"),
    ],
)
def test_the_compact_optimizer_needs_bfloat16_and_no_sharding(
    dataset: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConvkitError, match=f"--optim adamw_bf16 {message}"):
        runs.config(dataset, dataset, dataset, optim="adamw_bf16", **options)


def test_pure_bfloat16_training_follows_mixed_precision_training(dataset: Path, family: Phi3VFamily) -> None:
    options = {"bf16": True, "num_train_epochs": 3}
    compact, packs = runs.parts(runs.config(dataset, family.directory, dataset, optim="adamw_bf16", **options), family)
    plain, _ = runs.parts(runs.config(dataset, family.directory, dataset, **options), family)
    assert {p.dtype for p in compact.sharding.model.parameters()} == {torch.bfloat16}
    for step in range(compact.schedule.steps):
        ours, theirs = (t.step(step, map(packs.batch, t.schedule.micro_batches(step))) for t in (compact, plain))
        assert ours.loss == pytest.approx(theirs.loss, rel=0.02)

"""Helpers for tests that compare losses, gradients and saved tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def assert_same_gradients(ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def saved_tensors(forward: Callable[[], Any]) -> list[Tensor]:
    """Return the tensors that a forward pass saves for the backward pass."""
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return kept

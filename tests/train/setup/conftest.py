"""Fixtures for tests of the preparation of a model."""

from collections.abc import Iterator

import pytest
import torch

from convkit.train.setup import compilation


@pytest.fixture
def activation_budget() -> Iterator[None]:
    """Restore the activation budget that a test changes."""
    before = torch._functorch.config.activation_memory_budget
    yield
    compilation.set_activation_budget(before)

"""Fixtures for tests of training: tiny checkpoints, a dataset, and the official code's reference tensors."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from tests.train.helpers.forks import Forks

TEXTS = ["What is the total amount? It is a cup of coffee, and a logo.", "Is the statement true? True. False."] * 8


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="session")
def checkpoint(tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint("phi3_v")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset of ten rows with a receipt; tests do not change it."""
    from tests.train.helpers.runs import write_dataset  # which imports this module

    return write_dataset(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture(scope="session")
def family(checkpoint: Path) -> Phi3VFamily:
    return Phi3VFamily(checkpoint, num_crops=1)


@pytest.fixture
def model(family: Phi3VFamily) -> Phi3VForCausalLM:
    loaded: Phi3VForCausalLM = family.load(torch.float32).eval()
    return loaded


@pytest.fixture(scope="session")
def reference(shared_data: Path) -> Path:
    return shared_data / "reference" / "phi35_vision_tiny"

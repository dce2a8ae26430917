"""Fixtures of transformers' model families: a tiny checkpoint of each, and images."""

from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from convkit.train.models import model_family, tiny
from convkit.train.models.hf.families import FAMILIES
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.tiny.idefics3 import Idefics3Size
from tests.train.conftest import TEXTS
from tests.train.models.hf.rows import SIZES


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    for number, (name, size) in enumerate(SIZES.items()):
        PIL.Image.effect_noise(size, 40 + number).save(directory / name)
    return directory


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Path]) -> HuggingFaceFamily:
    found = model_family(tiny_checkpoint(request.param))
    assert isinstance(found, HuggingFaceFamily)
    return found


@pytest.fixture(scope="session")
def tiled_smolvlm(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceFamily:
    """Build a SmolVLM that cuts images larger than 64 pixels into tiles."""
    directory = tmp_path_factory.mktemp("tiled")
    tiny.smolvlm(directory, TEXTS, Idefics3Size(longest_edge=128))
    return HuggingFaceFamily(directory)

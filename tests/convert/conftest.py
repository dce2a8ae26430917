"""Clips made once for all conversion tests, which must not change them."""

from pathlib import Path

import pytest

from tests.convert.helpers import official_tree
from tests.fixtures.make_clips import make


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty sound clips by split and class."""
    folder = tmp_path_factory.mktemp("made") / "clips"
    make(folder, 1)
    return folder


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official layout, with lists."""
    folder = tmp_path_factory.mktemp("made") / "official"
    official_tree(folder)
    return folder

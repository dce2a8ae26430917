"""Settings and fixtures of all tests."""

import os
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tests.convert.helpers import official_tree
from tests.fixtures.make_clips import make

# The same code gets the same verdict: examples follow from the tests. `make search` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile("same")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real media and reference values (env CONVKIT_TEST_DATA), outside the repository."""
    path = Path(os.environ.get("CONVKIT_TEST_DATA", ROOT.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no test data at {path}; set CONVKIT_TEST_DATA")
    return path


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of a test's random choices: fixed, or drawn by `make search` (env CONVKIT_TEST_SEED)."""
    return zlib.crc32(f"{os.environ.get('CONVKIT_TEST_SEED', '0')} {request.node.name}".encode())


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own cache, and keep the user's cache unchanged."""
    monkeypatch.setenv("CONVKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twenty valid clips by split and class."""
    folder = tmp_path_factory.mktemp("made") / "clips"
    make(folder, 1)
    return folder


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source in the official layout of UCF-101, with lists."""
    folder = tmp_path_factory.mktemp("made") / "official"
    official_tree(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds a family's tiny checkpoint once; a test that changes it copies it first."""
    pytest.importorskip("torch", reason="needs the extra train: pip install 'convkit-vlm[train]'")
    from convkit.train.models import tiny
    from tests.train.conftest import TEXTS

    root = tmp_path_factory.mktemp("tiny")

    @cache
    def build(family: str) -> Path:
        tiny.BUILDERS[family](root / family, TEXTS)
        return root / family

    return build

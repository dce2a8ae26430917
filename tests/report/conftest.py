"""Fixtures: a dataset, and the directory of a finished training run on it."""

from pathlib import Path

import pytest

from tests.report import run_directories as directories


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return directories.dataset(tmp_path / "data", directories.rows())


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return directories.training(tmp_path / "run", data, directories.rows())

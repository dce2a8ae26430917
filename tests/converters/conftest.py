"""Fixtures of the tests of converters."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def textvqa_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a source of The Cauldron: two Parquet files with several row groups each."""
    from tests.converters.cauldron_files import ROWS, cauldron_rows, write

    folder = tmp_path_factory.mktemp("cauldron") / "textvqa"
    write(folder / "train-00000-of-00002.parquet", cauldron_rows(ROWS // 2))
    write(folder / "train-00001-of-00002.parquet", cauldron_rows(ROWS // 2, ROWS // 2))
    return folder


@pytest.fixture(scope="session")
def textvqa_dataset(textvqa_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the source with default options."""
    from tests.converters.cauldron_files import run

    out_dir = tmp_path_factory.mktemp("textvqa_dataset") / "out"
    run(textvqa_source, out_dir)
    return out_dir

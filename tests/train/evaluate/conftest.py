"""Fixtures for the tests of evaluation: a tiny SmolVLM, a small yes/no dataset, and the options of a run."""

from pathlib import Path

import pytest

from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models import tiny
from tests.train.conftest import TEXTS
from tests.train.evaluate.helpers import rows, validated_dataset


@pytest.fixture(scope="session")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("smolvlm")
    tiny.smolvlm(directory, [*TEXTS, "Yes No"] * 4)
    return directory


@pytest.fixture(scope="session")
def dataset(smolvlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return validated_dataset(tmp_path_factory.mktemp("data") / "pets", smolvlm, rows())


@pytest.fixture
def options(dataset: Path, smolvlm: Path, tmp_path: Path) -> EvaluateOptions:
    return EvaluateOptions(
        data_dir=dataset,
        model=smolvlm,
        output_dir=tmp_path / "out",
        split="train",
        batch_size=2,
        max_new_tokens=6,
        dataloader_num_workers=0,
    )

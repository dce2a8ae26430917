"""Index the rows of a measurement: a dataset directory, or synthetic rows."""

from dataclasses import dataclass
from pathlib import Path

from convkit import layout
from convkit.dataset import Dataset
from convkit.train.data import index
from convkit.train.data.index import Index
from convkit.train.models.family import ModelFamily
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class BenchData:
    """Indexed rows and the directory of their images."""

    index: Index
    images: Path


def dataset_label(directory: Path) -> str:
    """Return the name of a dataset for results, which must not reveal its path."""
    return f"dataset {Dataset.open(directory).manifest.name}"


def index_split(
    directory: Path, split: str, family: ModelFamily, max_tokens: int, drop_overlong: bool, bars: ProgressBars
) -> BenchData:
    """Index a split of a dataset directory. No receipt is needed.

    Raises:
        DatasetError: see `convkit.train.data.index.build`.
    """
    images = directory / layout.IMAGES
    with bars("counting tokens", "rows") as update:
        rows = index.build(
            Dataset.open(directory), split, lambda row: family.length(row, images), max_tokens, update, drop_overlong
        )
    return BenchData(rows, images)

"""What is trained on in a measurement: a data set on the disk, or one that is made for it."""

from dataclasses import dataclass
from pathlib import Path

from convkit import layout
from convkit.dataset import Dataset
from convkit.train.data import index
from convkit.train.data.index import Index
from convkit.train.models.family import ModelFamily
from convkit.utils.progress import ProgressBars


@dataclass(frozen=True)
class Data:
    """What the trainer reads."""

    index: Index
    images: Path


def named_data_set(directory: Path) -> str:
    """What results call it: not by its path, which is nobody else's business."""
    return f"data set {Dataset.open(directory).manifest.name}"


def read(
    directory: Path, split: str, family: ModelFamily, max_tokens: int, drop_overlong: bool, bars: ProgressBars
) -> Data:
    """A split of a dataset directory, which needs no receipt here.

    Raises:
        DatasetError: see `convkit.train.data.index.build`.
    """
    images = directory / layout.IMAGES
    with bars("counting tokens", "rows") as update:
        rows = index.build(
            Dataset.open(directory), split, lambda row: family.length(row, images), max_tokens, update, drop_overlong
        )
    return Data(rows, images)

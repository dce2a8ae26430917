"""A small workload and its training configuration, for the tests of training benchmarks."""

from pathlib import Path
from typing import Any

import torch

from convkit.train.bench.data import BenchData
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.synthetic import write_dataset
from convkit.train.bench.workloads import WORKLOADS, RowShape, Workload
from convkit.train.config import Config

CPU = torch.device("cpu")
NUM_CROPS = 2


def small_workload() -> Workload:
    """Return pages of the document workload, with little text and few crops."""
    images = WORKLOADS["document"]
    return Workload(
        NUM_CROPS, lambda random: RowShape(images.draw(random).images, "page", question_words=5, answer_words=3)
    )


def small_data(family: RandomPhi3V, folder: Path) -> BenchData:
    """Write two rows of the small workload."""
    return write_dataset(small_workload(), 2, family, folder)


def configured(folder: Path, **options: Any) -> Config:
    """Return a training configuration with two rows per global batch."""
    return Config(data_dir=folder, model=folder, output_dir=folder, num_crops=NUM_CROPS, batch_size=2, **options)

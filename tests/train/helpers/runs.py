"""Helpers for tests of training runs: a small dataset with a receipt, whole runs, and the parts of a run."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from convkit.dataset import Dataset
from convkit.profiles import TargetModel
from convkit.train import run
from convkit.train.checkpoint.store import checkpoints
from convkit.train.config import Config, resolve
from convkit.train.data.index import Index, build
from convkit.train.data.loader import MicroBatches
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.world import World
from convkit.train.models.family import ModelFamily
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.sharding import shard
from convkit.train.setup.trainable import load_for_training
from convkit.train.trainer import StepResult, Trainer
from convkit.validate.run import validate
from tests.fixtures.builders import lines, manifest, png
from tests.train.conftest import TEXTS

ROWS = 10
PROFILE = "phi-3.5-vision:num_crops=1"
WORDS = [word for text in TEXTS for word in text.split()][:20]
ONE = World(0, 1, torch.device("cpu"))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    """Return rows with answers of many lengths; every third row has an image."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        words = chance.sample(WORDS, chance.randint(3, 12))
        turn = {
            "images": [f"{number}.png"] if number % 3 == 0 else [],
            "user": " ".join(words),
            "assistant": " ".join(chance.sample(WORDS, 1 + number % 5)),
        }
        found.append({"id": f"r{number}", "source": "pets", "conversations": [turn]})
    return found


def write_dataset(
    directory: Path, content: list[dict[str, Any]] | None = None, validated: bool = True, model: str | None = PROFILE
) -> Path:
    content = rows() if content is None else content
    (directory / "images").mkdir(parents=True)
    names = {name for row in content for turn in row["conversations"] for name in turn["images"]}
    for name in sorted(names):
        (directory / "images" / name).write_bytes(png(4, 4, sum(name.encode()) % 256))
    files = {"pets_train.jsonl": lines(*content)}
    (directory / "pets_train.jsonl").write_bytes(files["pets_train.jsonl"])
    (directory / "dataset.json").write_bytes(manifest(files, train="pets_train.jsonl"))
    if validated:
        receipt(directory, model)
    return directory


def receipt(directory: Path, model: str | None = PROFILE) -> None:
    assert validate([directory], target=TargetModel.from_options(model) if model else None, workers=0).receipts


def config(dataset: Path, checkpoint: Path, out: Path, **options: Any) -> Config:
    usual = {"num_crops": 1, "batch_size": 4, "warmup_steps": 1, "learning_rate": 1e-3, "dataloader_num_workers": 0}
    paths = {"data_dir": dataset, "model": checkpoint, "output_dir": out}
    return resolve({**usual, **paths, "lora_rank": 4, "gradient_checkpointing": "none", "tqdm": False, **options})


def train(dataset: Path, family: Any, out: Path, **options: Any) -> list[str]:
    """Train in this process, and return the lines of the log."""
    lines: list[str] = []
    run.train(config(dataset, family.directory, out, **options), family, ONE, log=lines.append)
    return lines


def losses(out: Path) -> list[float]:
    """Return the loss of every step of a run."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def last_tensors(out: Path) -> dict[str, Tensor]:
    """Return the tensors of a run's last checkpoint."""
    tensors: dict[str, Tensor] = load_file(checkpoints(out)[-1] / "state.safetensors")
    return tensors


def schedule_of(index: Index, config: Config, padded: bool = False) -> BatchSchedule:
    options = ScheduleOptions(
        epochs=config.num_train_epochs,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        max_rows=config.batch_size_per_gpu,
        seed=config.seed,
        padded=padded,
    )
    return BatchSchedule(index.tokens, options)


def parts(config: Config, family: ModelFamily) -> tuple[Trainer, MicroBatches]:
    images = config.data_dir / "images"
    dataset, silent = Dataset.open(config.data_dir), lambda done, total: None
    index = build(dataset, "train", lambda row: family.length(row, images), config.max_tokens, silent)
    model = load_for_training(family, config).train()
    schedule = schedule_of(index, config, padded=not family.supports_packing)
    trainer = Trainer(shard(model, config, ONE), schedule, index, config, ONE)
    return trainer, MicroBatches(index, images, family)


def first_step(dataset: Path, family: Phi3VFamily, **options: Any) -> tuple[Trainer, StepResult]:
    trainer, micro_batches = parts(config(dataset, family.directory, dataset, **options), family)
    return trainer, step(trainer, micro_batches, 0)


def step(trainer: Trainer, micro_batches: MicroBatches, number: int) -> StepResult:
    """Train on the micro-batches of one step."""
    return trainer.step(number, map(micro_batches.batch, trainer.schedule.micro_batches(number)))


def gradients(trainer: Any, batch: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
    trainer.sharding.model.zero_grad()
    loss = trainer.forward_backward(batch, 7, last=True)
    named = trainer.sharding.model.named_parameters()
    return float(loss), {name: p.grad.clone() for name, p in named if p.grad is not None}


def stir(model: nn.Module) -> None:
    """Fill the adapters' zero matrices, which would hide the gradients of the others."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)

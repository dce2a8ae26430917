"""How far losses, gradients and curves are from float32: by bfloat16, by float8, by weights in 4 bits.

Run: python -m benchmarks.float8 CHECKPOINT DATA_DIR [--rows N] [--steps N] [--num_crops N] [--json FILE]

The first rows go through the model at once, whose adapters are not zero, forward and backward: `loss` and `gradient`
are differences over what float32 gives, the latter of all adapters together, by their norms; `cosine` is of both
gradients. Then adapters, and what sees in full, are trained for some steps in float32, with products in float8, and in
float32 again with another seed, which shows how much of a difference means nothing.

All on the CPU, where products of float8 are computed from the same rounded numbers as on a GPU; what is not rounded to
float8 is float32 in the curves. 4 bits where bitsandbytes is installed.
"""

import argparse
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.curves import differences
from convkit.train.config import Config, resolve
from convkit.train.distributed.environment import versions
from convkit.train.models import model_family
from convkit.train.trainer import Trainer
from tests.train.helpers import runs

WAYS: dict[str, dict[str, Any]] = {
    "float32": {"use_lora": True},
    "bfloat16": {"use_lora": True, "bf16": True},
    "float8": {"use_lora": True, "bf16": True, "fp8": True},
    "4 bits": {"use_qlora": True, "bf16": True},
}
LEARNING = {"use_lora": True, "full_vision_model": True, "learning_rate": 5e-4, "warmup_steps": 5, "batch_size": 12}


def main() -> None:
    """Compute all ways in turn; what was done is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--num_crops", type=int)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/float8.json"))
    told = parser.parse_args()
    found: dict[str, Any] = {"model": told.model.name, "data": told.data_dir.name, "rows": told.rows} | versions()
    exact = None
    for way, options in WAYS.items():
        if way == "4 bits" and importlib.util.find_spec("bitsandbytes") is None:
            continue
        seen = gradients(_config(told, options), told.rows)
        exact = exact or seen
        found.setdefault("from float32", {})[way] = distances(seen, exact)
        _say(told.json, found, way, found["from float32"][way])
    plain = _config(told, LEARNING)
    curves = found["losses"] = {}
    for way, config in {"float32": plain, "float8": replace(plain, fp8=True), "again": replace(plain, seed=1)}.items():
        curves[way] = losses(config, told.steps)
        found["differences"] = differences(curves, "float32")
        _say(told.json, found, way, found["differences"].get(way, {}))


def _config(told: argparse.Namespace, options: dict[str, Any]) -> Config:
    paths = {"data_dir": told.data_dir, "model": told.model, "output_dir": told.data_dir / "no-run"}
    return resolve({**paths, "num_crops": told.num_crops, "gradient_checkpointing": "none", "lora_rank": 32, **options})


def _parts(config: Config) -> tuple[Trainer, Any]:
    return runs.parts(config, model_family(config.model, config.num_crops))


def _say(file: Path, found: dict[str, Any], way: str, figures: dict[str, float]) -> None:
    print(way, figures, flush=True)
    file.write_text(json.dumps(found, indent=1) + "\n")


def gradients(config: Config, rows: int) -> tuple[float, Tensor]:
    """The loss, and the gradients of all adapters end to end."""
    trainer, packs = _parts(config)
    trained = {name: p for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    for name in sorted(trained):
        if "lora_B" in name and "lm_head" not in name:  # 4 bits leave the head without adapters
            trained[name].data.normal_(std=0.01)
    loss = trainer.forward_backward(packs.batch(tuple(range(rows))), 1000, last=True)
    found = [p.grad for name, p in sorted(trained.items()) if p.grad is not None and "lm_head" not in name]
    return float(loss), torch.cat([gradient.flatten().double() for gradient in found])


def distances(ours: tuple[float, Tensor], exact: tuple[float, Tensor]) -> dict[str, float]:
    """See above."""
    (loss, gradient), (wanted, other) = ours, exact
    return {
        "loss": abs(loss - wanted) / wanted,
        "gradient": float((gradient - other).norm() / other.norm()),
        "cosine": float(torch.cosine_similarity(gradient, other, dim=0)),
    }


def losses(config: Config, steps: int) -> list[float]:
    """Of so many steps."""
    trainer, packs = _parts(config)
    return [trainer.step(step, map(packs.batch, trainer.schedule.micro_batches(step))).loss for step in range(steps)]


if __name__ == "__main__":
    main()

"""Measure how far bfloat16, float8 and 4-bit weights are from float32, in loss, gradient and loss curve.

Run: python -m benchmarks.float8 CHECKPOINT DATA_DIR [--rows N] [--steps N] [--num_crops N] [--json FILE]

The first rows go through the model in one micro-batch, forward and backward, with adapters that are not zero. `loss`
and `gradient` are differences relative to float32, the latter for all adapters together, by norms. `cosine` compares
the two gradients. Then adapters and the whole vision tower are trained for some steps: in float32, with float8
products, and in float32 with another seed. The last one shows the difference due to chance.

Everything runs on the CPU. Products in float8 use the same rounded numbers as on a GPU; everything else is float32 in
the curves. 4-bit weights are measured if bitsandbytes is installed.
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

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"use_lora": True},
    "bfloat16": {"use_lora": True, "bf16": True},
    "float8": {"use_lora": True, "bf16": True, "fp8": True},
    "4 bits": {"use_qlora": True, "bf16": True},
}
TRAINED = {"use_lora": True, "full_vision_model": True, "learning_rate": 5e-4, "warmup_steps": 5, "batch_size": 12}


def main() -> None:
    """Compute each variant in turn, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--num_crops", type=int)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/float8.json"))
    given = parser.parse_args()
    found: dict[str, Any] = {"model": given.model.name, "data": given.data_dir.name, "rows": given.rows} | versions()
    exact = None
    for variant, options in VARIANTS.items():
        if variant == "4 bits" and importlib.util.find_spec("bitsandbytes") is None:
            continue
        computed = loss_and_gradient(_config(given, options), given.rows)
        exact = exact or computed
        found.setdefault("from float32", {})[variant] = distances(computed, exact)
        _save(given.json, found, variant, found["from float32"][variant])
    plain = _config(given, TRAINED)
    curves = found["losses"] = {}
    configs = {"float32": plain, "float8": replace(plain, fp8=True), "again": replace(plain, seed=1)}
    for variant, config in configs.items():
        curves[variant] = losses(config, given.steps)
        found["differences"] = differences(curves, "float32")
        _save(given.json, found, variant, found["differences"].get(variant, {}))


def _config(given: argparse.Namespace, options: dict[str, Any]) -> Config:
    paths = {"data_dir": given.data_dir, "model": given.model, "output_dir": given.data_dir / "no-run"}
    return resolve(
        {**paths, "num_crops": given.num_crops, "gradient_checkpointing": "none", "lora_rank": 32, **options}
    )


def _parts(config: Config) -> tuple[Trainer, Any]:
    return runs.parts(config, model_family(config.model, config.num_crops))


def _save(file: Path, found: dict[str, Any], variant: str, figures: dict[str, float]) -> None:
    print(variant, figures, flush=True)
    file.write_text(json.dumps(found, indent=1) + "\n")


def loss_and_gradient(config: Config, rows: int) -> tuple[float, Tensor]:
    """Return the loss, and the concatenated gradients of all adapters."""
    trainer, packs = _parts(config)
    trained = {name: p for name, p in trainer.sharding.model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    for name in sorted(trained):
        if "lora_B" in name and "lm_head" not in name:  # with 4-bit weights the head has no adapter
            trained[name].data.normal_(std=0.01)
    loss = trainer.forward_backward(packs.batch(tuple(range(rows))), 1000, last=True)
    found = [p.grad for name, p in sorted(trained.items()) if p.grad is not None and "lm_head" not in name]
    return float(loss), torch.cat([gradient.flatten().double() for gradient in found])


def distances(ours: tuple[float, Tensor], exact: tuple[float, Tensor]) -> dict[str, float]:
    """Return the differences that the module's docstring describes."""
    (loss, gradient), (exact_loss, exact_gradient) = ours, exact
    return {
        "loss": abs(loss - exact_loss) / exact_loss,
        "gradient": float((gradient - exact_gradient).norm() / exact_gradient.norm()),
        "cosine": float(torch.cosine_similarity(gradient, exact_gradient, dim=0)),
    }


def losses(config: Config, steps: int) -> list[float]:
    """Train for some steps, and return the loss of each."""
    trainer, packs = _parts(config)
    return [trainer.step(step, map(packs.batch, trainer.schedule.micro_batches(step))).loss for step in range(steps)]


if __name__ == "__main__":
    main()

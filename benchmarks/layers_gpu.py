"""Measure one layer of the language model and one of CLIP, forward and backward, by kind of kernel.

Run: python -m benchmarks.layers_gpu [--json FILE] [NAME...]

The layers are those of Phi-3.5-vision with random weights, prepared as by `convkit train`. The micro-batch is four
documents of 2,559 tokens with 17 crops each. A variant has all optimizations, or all but one; `lora` and `full` name
the fine-tuning method. FILE is written after each variant, and keeps its results for other variants on the same device.

To try it on a CPU: --model_size tiny --json FILE. That measures one short document, without kernels.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.processes import ROOT
from convkit.train.bench import gpu
from convkit.train.bench.options import ModelSize
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.config import resolve
from convkit.train.distributed.environment import versions
from convkit.train.models.collate import Sample, pack
from convkit.train.models.kernels.lora import unfuse_lora
from convkit.train.models.kernels.pad_packed import padded_indices
from convkit.train.setup import trainable
from convkit.train.setup.compilation import ALL, EXPENSIVE, set_activation_budget

TOKENS, CROPS = 2559, 17
"""Tokens and crops of one document."""
LORA = {"use_lora": True, "lora_rank": 32, "lora_alpha_ratio": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "lora, float8": {**LORA, "fp8": True},
    "lora, documents end to end": {**LORA, "padded": False},
    "lora, crops in two parts": {**LORA, "parts": 2},
    "lora, selective recomputation": {**LORA, "budget": EXPENSIVE},
    "lora, peft's adapters": {**LORA, "fused": False},
    "lora, not compiled": {**LORA, "compile": False},
    "full": {},
    "full, documents end to end": {"padded": False},
    "full, selective recomputation": {"budget": EXPENSIVE},
    "full, not compiled": {"compile": False},
}
OTHER = "other"
KINDS = {
    OTHER: r"(?i)triton|elementwise",  # compiled kernels are named after all of their operations, attention included
    "attention": r"flash|fmha|cudnn|attention",
    "products": r"gemm|nvjet|cutlass|xmma|splitK",
}
"""Kinds of kernels by patterns of their names, in this order. Other kernels are mostly elementwise."""


@dataclass(frozen=True)
class Size:
    """The size of the model and of the micro-batch, and the number of repetitions."""

    model_size: ModelSize
    documents: int
    tokens: int
    repeats: int


SIZES = {"full": Size("full", 4, TOKENS, 10), "tiny": Size("tiny", 1, 200, 1)}


def main() -> None:
    """Measure the named variants, by default all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(VARIANTS), metavar="NAME", help="; ".join(VARIANTS))
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/layers_gpu.json")
    parser.add_argument("--model_size", choices=list(SIZES), default="full")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in VARIANTS]:
        parser.error(f"no variant {'; '.join(unknown)}; choose from {'; '.join(VARIANTS)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU", "versions": versions()}
    found = json.loads(given.json.read_bytes()) if given.json.exists() else {}
    found = about | {"ms": found["ms"] if found.get("device") == about["device"] else {}}
    for variant in given.names:
        found["ms"][variant] = measure(SIZES[given.model_size], device, **VARIANTS[variant])
        print(variant, json.dumps(found["ms"][variant]), flush=True)
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(
    size: Size,
    device: torch.device,
    padded: bool = True,
    parts: int = 1,
    budget: float = ALL,
    fused: bool = True,
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Return the milliseconds of both layers.

    Args:
        padded: pad the packed documents to a batch, if the device has attention kernels for that.
        parts: split the crops into this many batches for CLIP.
        budget: see `convkit.train.setup.compilation.set_activation_budget`.
        fused: use convkit's fused LoRA, not peft's modules.
        options: options of `convkit train`.
    """
    gpu.free_memory(device)
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        paths = {"data_dir": scratch, "model": scratch, "output_dir": Path(scratch) / "run"}
        config = resolve({**paths, "bf16": True, "optim": "adamw_bf16", "gradient_checkpointing": "none", **options})
        model = trainable.load_for_training(
            RandomPhi3V(Path(scratch) / "model", size.model_size, 16, device, seed=0), config
        )
    set_activation_budget(budget)
    if not fused:
        unfuse_lora(model)
    whole = getattr(model.train(), "get_base_model", lambda: model)().model
    layers = {"language": _language(whole, size, padded), "clip": _clip(whole, size, parts)}
    return {name: _timed(forward, device, size.repeats) for name, forward in layers.items()}


def _language(model: Any, size: Size, padded: bool) -> Callable[[], Tensor]:
    """Return a function that runs the first layer of the language model forward."""
    device, document = model.norm.weight.device, torch.zeros(size.tokens, dtype=torch.long)
    batch = pack([Sample(document, document, {})] * size.documents)
    batch |= padded_indices([size.tokens] * size.documents) if padded else {}
    given = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    shape, positions = given.pop("input_ids").shape, given["position_ids"]
    del given["labels"]
    hidden = torch.randn(*shape, model.config.hidden_size, device=device, dtype=torch.bfloat16)
    tables = model.rotary_emb(positions, torch.full_like(positions, size.tokens), hidden.dtype)
    given |= {"attention_mask": None, "position_embeddings": tables}
    return lambda: model.layers[0](hidden.detach().requires_grad_(), **given)


def _clip(model: Any, size: Size, parts: int) -> Callable[[], Tensor]:
    """Return a function that runs the first layer of CLIP forward."""
    tower = model.vision_embed_tokens.img_processor.vision_model
    config = model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    shape = (size.documents * CROPS, tokens, config.hidden_size)
    states = torch.randn(shape, device=model.norm.weight.device, dtype=torch.bfloat16).tensor_split(parts)
    return lambda: torch.cat([tower.encoder.layers[0](part.detach().requires_grad_(), None) for part in states])


def _timed(forward: Callable[[], Tensor], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the milliseconds of forward and backward: mean over rounds, and one round by kind of kernel."""
    gradient = torch.randn_like(forward())

    def step() -> None:
        torch.autograd.backward(forward(), gradient)

    for _ in range(min(2, repeats)):
        step()
    gpu.synchronize(device)
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    gpu.synchronize(device)
    total = 1000 * (time.perf_counter() - began) / repeats
    spent: Counter[str] = Counter()
    for event in gpu.profile_kernels(device, step) if device.type == "cuda" else ():
        spent[kind(event.name())] += event.duration_ns()
    return {"all": round(total, 3), **{name: round(ns / 1e6, 3) for name, ns in spent.items()}}


def kind(kernel: str) -> str:
    """Return the kind of a kernel, a key of `KINDS`."""
    return next((name for name, holds in KINDS.items() if re.search(holds, kernel)), OTHER)


if __name__ == "__main__":
    main()

"""Where the time of a layer goes: one of the language model and one of CLIP, forward and backward, by kinds of kernels.

Run: python -m benchmarks.layers_gpu [--json FILE] [NAME...]

The layers are those of Phi-3.5-vision with random weights, as `convkit train` prepares them; the pack is four documents
of 2,559 tokens with 17 crops each. A way is all that a run does, or that without one thing; `lora` and `full` say what
is trained. FILE is written after each, and keeps what it holds of other ways on the same device. With --geometry tiny
--json FILE it is rehearsed on a CPU, with one short document, where nothing is said of kernels.
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
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.processes import ROOT
from convkit.train.bench import gpu
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.config import resolve
from convkit.train.distributed.environment import versions
from convkit.train.models.collate import Sample, pack
from convkit.train.models.kernels.lora import unfuse_lora
from convkit.train.models.kernels.pad_packed import padded_indices
from convkit.train.setup import trainable
from convkit.train.setup.compilation import ALL, EXPENSIVE, set_activation_budget

TOKENS, CROPS = 2559, 17
"""Of a document."""
LORA = {"use_lora": True, "lora_rank": 32, "lora_alpha_ratio": 0.5}
WAYS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "lora, float8": {**LORA, "fp8": True},
    "lora, documents end to end": {**LORA, "stacked": False},
    "lora, crops in two parts": {**LORA, "parts": 2},
    "lora, cheap again": {**LORA, "kept": EXPENSIVE},
    "lora, peft's adapters": {**LORA, "fused": False},
    "lora, not compiled": {**LORA, "compile": False},
    "full": {},
    "full, documents end to end": {"stacked": False},
    "full, cheap again": {"kept": EXPENSIVE},
    "full, not compiled": {"compile": False},
}
OTHER = "other"
KINDS = {
    OTHER: r"(?i)triton|elementwise",  # what is compiled is named after all that it stands for, attention too
    "attention": r"flash|fmha|cudnn|attention",
    "products": r"gemm|nvjet|cutlass|xmma|splitK",
}
"""Of kernels, by what their names hold, in this order; others go over their operands once."""


@dataclass(frozen=True)
class Size:
    """What is measured, and how often."""

    geometry: Literal["full", "tiny"]
    documents: int
    tokens: int
    times: int


SIZES = {"full": Size("full", 4, TOKENS, 10), "tiny": Size("tiny", 1, 200, 1)}


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(WAYS), metavar="NAME", help="; ".join(WAYS))
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/layers_gpu.json")
    parser.add_argument("--geometry", choices=list(SIZES), default="full")
    told = parser.parse_args()
    if unknown := [name for name in told.names if name not in WAYS]:
        parser.error(f"no way {'; '.join(unknown)}; there are: {'; '.join(WAYS)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU", "versions": versions()}
    found = json.loads(told.json.read_bytes()) if told.json.exists() else {}
    found = about | {"ms": found["ms"] if found.get("device") == about["device"] else {}}
    for way in told.names:
        found["ms"][way] = measure(SIZES[told.geometry], device, **WAYS[way])
        print(way, json.dumps(found["ms"][way]), flush=True)
        told.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(
    size: Size,
    device: torch.device,
    stacked: bool = True,
    parts: int = 1,
    kept: float = ALL,
    fused: bool = True,
    **options: Any,
) -> dict[str, dict[str, float]]:
    """Milliseconds of both layers.

    Args:
        stacked: documents lie side by side, where the device has kernels for that.
        parts: CLIP sees the crops in so many.
        kept: see `convkit.train.setup.compilation.keep`.
        fused: adapters are ours, not peft's.
        options: of `convkit train`.
    """
    gpu.free_memory(device)
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        paths = {"data_dir": scratch, "model": scratch, "output_dir": Path(scratch) / "run"}
        config = resolve({**paths, "bf16": True, "optim": "adamw_bf16", "gradient_checkpointing": "none", **options})
        model = trainable.load_for_training(
            RandomPhi3V(Path(scratch) / "model", size.geometry, 16, device, seed=0), config
        )
    set_activation_budget(kept)
    if not fused:
        unfuse_lora(model)
    whole = getattr(model.train(), "get_base_model", lambda: model)().model
    layers = {"language": _language(whole, size, stacked), "clip": _clip(whole, size, parts)}
    return {name: _timed(forward, device, size.times) for name, forward in layers.items()}


def _language(model: Any, size: Size, stacked: bool) -> Callable[[], Tensor]:
    """One forward pass of a layer in the middle."""
    device, document = model.norm.weight.device, torch.zeros(size.tokens, dtype=torch.long)
    batch = pack([Sample(document, document, {})] * size.documents)
    batch |= padded_indices([size.tokens] * size.documents) if stacked else {}
    given = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    shape, positions = given.pop("input_ids").shape, given["position_ids"]
    del given["labels"]
    hidden = torch.randn(*shape, model.config.hidden_size, device=device, dtype=torch.bfloat16)
    tables = model.rotary_emb(positions, torch.full_like(positions, size.tokens), hidden.dtype)
    given |= {"attention_mask": None, "position_embeddings": tables}
    return lambda: model.layers[0](hidden.detach().requires_grad_(), **given)


def _clip(model: Any, size: Size, parts: int) -> Callable[[], Tensor]:
    tower = model.vision_embed_tokens.img_processor.vision_model
    config = model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    shape = (size.documents * CROPS, tokens, config.hidden_size)
    states = torch.randn(shape, device=model.norm.weight.device, dtype=torch.bfloat16).tensor_split(parts)
    return lambda: torch.cat([tower.encoder.layers[0](part.detach().requires_grad_(), None) for part in states])


def _timed(forward: Callable[[], Tensor], device: torch.device, times: int) -> dict[str, float]:
    """Milliseconds forward and backward, means of several rounds; and of one round by kinds of kernels."""
    gradient = torch.randn_like(forward())

    def step() -> None:
        torch.autograd.backward(forward(), gradient)

    for _ in range(min(2, times)):
        step()
    gpu.synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        step()
    gpu.synchronize(device)
    whole = 1000 * (time.perf_counter() - began) / times
    spent: Counter[str] = Counter()
    for event in gpu.profile_kernels(device, step) if device.type == "cuda" else ():
        spent[kind(event.name())] += event.duration_ns()
    return {"all": round(whole, 3), **{name: round(ns / 1e6, 3) for name, ns in spent.items()}}


def kind(kernel: str) -> str:
    """Of `KINDS`."""
    return next((name for name, holds in KINDS.items() if re.search(holds, kernel)), OTHER)


if __name__ == "__main__":
    main()

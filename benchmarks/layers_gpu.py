"""Where the time of a layer goes: one of the language model and one of CLIP, forward and backward, by kinds of kernels.

Run: python -m benchmarks.layers_gpu [--json FILE] [NAME...]

The layers are those of Phi-3.5-vision with random weights, as `convkit train` prepares them; the pack is four documents
of 2,559 tokens with 17 crops each. A way is all that a run does, or that without one thing; `lora` and `full` say what
is trained. With --geometry tiny it is rehearsed on a CPU, where nothing is said of kernels.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from convkit.train import methods
from convkit.train.bench import card
from convkit.train.bench.geometry import RandomPhi3V
from convkit.train.config import resolve
from convkit.train.environment import versions
from convkit.train.stack import places

DOCUMENTS, TOKENS, CROPS = 4, 2559, 17
LORA = {"use_lora": True, "lora_rank": 32, "lora_alpha_ratio": 0.5}
WAYS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "lora, documents end to end": {**LORA, "stacked": False},
    "lora, crops in two parts": {**LORA, "parts": 2},
    "lora, all kept": {**LORA, "kept": 1.0},
    "lora, peft's adapters": {**LORA, "lora_dropout": 1e-6},
    "lora, not compiled": {**LORA, "compile": False},
    "full": {},
    "full, documents end to end": {"stacked": False},
    "full, all kept": {"kept": 1.0},
    "full, not compiled": {"compile": False},
}
TIMES = 10
KINDS = {"attention": r"flash|fmha|cudnn.*sdpa|attention", "products": r"gemm|nvjet|cutlass|xmma|splitK"}
"""Of kernels, by what their names hold, in this order; others go over their operands once."""


def main() -> None:
    """Measure what is named; the file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(WAYS), metavar="NAME", help="; ".join(WAYS))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/layers_gpu.json"))
    parser.add_argument("--geometry", choices=["full", "tiny"], default="full")
    told = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "versions": versions(), "ms": {}}
    for way in told.names:
        found["ms"][way] = _measured(told.geometry, device, **WAYS[way])
        print(way, json.dumps(found["ms"][way]), flush=True)
        told.json.write_text(json.dumps(found, indent=1) + "\n")


def _measured(
    geometry: Any, device: torch.device, stacked: bool = True, parts: int = 1, kept: float | None = None, **options: Any
) -> dict[str, dict[str, float]]:
    """Milliseconds of both layers."""
    card.release(device)
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        paths = {"data_dir": scratch, "model": scratch, "output_dir": Path(scratch) / "run"}
        config = resolve({**paths, "bf16": True, "optim": "adamw_bf16", "checkpointing": "none", **options})
        model = methods.load(RandomPhi3V(Path(scratch) / "model", geometry, 16, device, seed=0), config)
    if kept is not None:
        torch._functorch.config.activation_memory_budget = kept
    model = model.to(device).train()
    whole = getattr(model, "get_base_model", lambda: model)().model
    return {"language": _timed(_language(whole, stacked), model), "clip": _timed(_clip(whole, parts), model)}


def _language(model: Any, stacked: bool) -> Callable[[], Tensor]:
    """One forward pass of a layer in the middle."""
    device, lengths = model.norm.weight.device, [TOKENS] * DOCUMENTS
    bounds = torch.arange(0, DOCUMENTS * TOKENS + 1, TOKENS, dtype=torch.int32)
    pack = {"cu_seq_lens_q": bounds, "max_length_q": TOKENS} | (places(lengths) if stacked else {})
    pack = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in pack.items()}
    positions = torch.arange(TOKENS, device=device).repeat(DOCUMENTS)[None]
    hidden = torch.randn(1, DOCUMENTS * TOKENS, model.config.hidden_size, device=device, dtype=torch.bfloat16)
    tables = model.rotary_emb(positions, torch.full_like(positions, TOKENS), hidden.dtype)
    given = {"attention_mask": None, "position_ids": positions, "position_embeddings": tables, **pack}
    return lambda: model.layers[0](hidden.requires_grad_(), **given)


def _clip(model: Any, parts: int) -> Callable[[], Tensor]:
    tower = model.vision_embed_tokens.img_processor.vision_model
    config = model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    shape = (DOCUMENTS * CROPS, tokens, config.hidden_size)
    states = torch.randn(shape, device=model.norm.weight.device, dtype=torch.bfloat16).tensor_split(parts)
    return lambda: torch.cat([tower.encoder.layers[0](part.requires_grad_(), None) for part in states])


def _timed(forward: Callable[[], Tensor], model: Any) -> dict[str, float]:
    """Means of several rounds."""
    device = next(model.parameters()).device
    gradient = torch.randn_like(forward())

    def step() -> None:
        torch.autograd.backward(forward(), gradient)

    for _ in range(2):
        step()
    card.wait(device)
    began = time.perf_counter()
    for _ in range(TIMES):
        step()
    card.wait(device)
    whole = 1000 * (time.perf_counter() - began) / TIMES
    return {"all": round(whole, 3), **(_kinds(step, device) if device.type == "cuda" else {})}


def _kinds(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Milliseconds of one round by kinds of kernels."""
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        step()
        card.wait(device)
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    spent: Counter[str] = Counter()
    for event in seen.profiler.kineto_results.events():
        if event.device_type().name == "CUDA" and not event.is_user_annotation():
            kind = next((kind for kind, names in KINDS.items() if re.search(names, event.name())), "other")
            spent[kind] += event.duration_ns()
    return {kind: round(spent[kind] / 1e6, 3) for kind in (*KINDS, "other")}


if __name__ == "__main__":
    main()

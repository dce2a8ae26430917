"""Measure the full-size Phi-3.5-vision with random weights on one GPU in bf16: time, memory, packed and unpacked loss.

Run: python -m benchmarks.phi35_gpu [--layers N] > benchmarks/results/phi35_gpu.json
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from convkit.profiles.phi3 import TILE, hd_tokens
from convkit.train.models.collate import Sample, pack
from convkit.train.models.kernels import attention
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.family import packed_batch
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.tokenize import IGNORE_INDEX

GIB = 2**30
ANSWER = 16
SHORT = 4096
DOCUMENTS = [(1, 2, 200), (8, 2, 300), (0, 0, 500), (1, 4, 100)]
"""Images, tiles along each side of an image, tokens of text. The second document exceeds 4,096 tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the language model; fewer for a smaller GPU")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device.")
    torch.manual_seed(0)
    config = Phi3VConfig(num_hidden_layers=arguments.layers)
    attention.register()
    config._attn_implementation = attention.VARLEN
    model, building = _timed(lambda: _build(config))
    samples = [_document(config, *document) for document in DOCUMENTS]
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": [len(sample) for sample in samples],
        "build": building,
    }
    try:
        result |= _losses(model, samples)
        result |= _training(model, samples)
        result["generate"] = _generation(model, samples[0])
    finally:  # a failure does not lose earlier results
        json.dump(result, sys.stdout, indent=2)
        print()


def _build(config: Phi3VConfig) -> Phi3VForCausalLM:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return Phi3VForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)


def _document(config: Phi3VConfig, images: int, side: int, words: int) -> Sample:
    size = side * TILE
    text = torch.randint(3, 32000, (words,))
    image = torch.tensor([config.image_token_id] * hd_tokens(size, size) + [1]) if images else text[:0]
    ids = torch.cat((torch.tensor([1]), *[image] * images, text))
    labels = ids.clone()
    labels[:-ANSWER] = IGNORE_INDEX
    if not images:
        return Sample(ids, labels, {})
    tiles = torch.randint(0, 256, (images * side * side, 3, TILE, TILE), dtype=torch.uint8)
    return Sample(ids, labels, {"pixel_values": tiles, "image_sizes": torch.tensor([[size, size]] * images)})


def _on_device(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def _alone(sample: Sample) -> dict[str, Any]:
    return _on_device({"input_ids": sample.input_ids[None], "labels": sample.labels[None], **sample.image_inputs})


def _timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    value = work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return value, {"seconds": round(seconds, 4), "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 3)}


@torch.no_grad()
def _losses(model: Phi3VForCausalLM, samples: list[Sample]) -> dict[str, Any]:
    """Return each document's loss packed and alone, in eval mode, and the packed loss computed in two ways."""
    model.eval()
    packed = _on_device(pack(samples))
    model(**packed)  # warm up
    output, forward = _timed(lambda: model(**packed))
    in_pack = [_loss(part, sample) for part, sample in zip(_split(output.logits[0], samples), samples, strict=True)]
    alone = [_loss(model(**_alone(sample)).logits[0], sample) for sample in samples]
    return {
        "forward_packed": forward,
        "loss_packed": in_pack,
        "loss_alone": alone,
        "largest_difference": max(abs(a - b) for a, b in zip(in_pack, alone, strict=True)),
        "loss_of_all_logits": float(output.loss),
        "loss_as_trained": float(model(**_as_trained(model, samples)).loss),
    }


def _as_trained(model: Phi3VForCausalLM, samples: list[Sample]) -> dict[str, Any]:
    """Return a packed batch as the data loader makes it, with the positions of images and labels computed."""
    packed = packed_batch(samples, model.config.image_token_id)
    packed["logits_to_keep"] = (packed["labels"][0, 1:] != IGNORE_INDEX).nonzero()[:, 0]
    return _on_device(packed)


def _split(logits: torch.Tensor, samples: list[Sample]) -> tuple[torch.Tensor, ...]:
    parts: tuple[torch.Tensor, ...] = torch.split(logits, [len(sample) for sample in samples])
    return parts


def _loss(logits: torch.Tensor, sample: Sample) -> float:
    labels = sample.labels[1:].to(logits.device)
    return float(torch.nn.functional.cross_entropy(logits[:-1], labels, ignore_index=IGNORE_INDEX))


def _training(model: Phi3VForCausalLM, samples: list[Sample]) -> dict[str, Any]:
    """Measure forward and backward: short documents without and with activation checkpointing, then all documents."""
    model.train()
    short = _on_device(pack([sample for sample in samples if len(sample) <= SHORT]))
    steps = {"plain": short, "checkpointed": short, "all_checkpointed": _on_device(pack(samples))}
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    found: dict[str, Any] = {}
    for name, packed in steps.items():
        if name == "checkpointed":
            enable({"use_reentrant": False})
        for _ in range(2):  # the first one warms up
            model.zero_grad(set_to_none=True)
            loss, found[name] = _timed(partial(_step, model, packed))
        norms = [p.grad.float().norm() for p in model.parameters() if p.grad is not None]
        found[name] |= {"loss": float(loss), "gradient_norm": float(torch.stack(norms).norm())}
    model.zero_grad(set_to_none=True)
    return found


def _step(model: Phi3VForCausalLM, batch: dict[str, Any]) -> torch.Tensor:
    loss: torch.Tensor = model(**batch).loss
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _generation(model: Phi3VForCausalLM, sample: Sample) -> dict[str, Any]:
    """Measure the generation of 64 tokens after one prompt."""
    model.eval()
    inputs = _alone(sample)
    del inputs["labels"]
    tokens = 64
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    model.generate(**inputs, **options)  # warm up
    _, measured = _timed(lambda: model.generate(**inputs, **options))
    return {**measured, "prompt_tokens": len(sample), "tokens_per_second": round(tokens / measured["seconds"], 2)}


if __name__ == "__main__":
    main()

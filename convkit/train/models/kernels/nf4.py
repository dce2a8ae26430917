"""Frozen weights in 4 bits (nf4), for adapters on top of them: QLoRA."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError

KIND, BLOCK = "nf4", 64
"""How four bits are read, and how many numbers share a scale."""


def quantize(model: Any, compute: torch.dtype, leave: Sequence[str] = ()) -> None:
    """Exchange all linear layers but the head for ones of 4 bits, which come to be when the model goes to its device.

    Args:
        compute: the type that weights are unpacked to for a product.
        leave: modules, by their names, whose layers stay as they are.

    Raises:
        ConvkitError: bitsandbytes does not work on this machine.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    _probe(Linear4bit)
    head = model.get_output_embeddings()
    left = {m for name in leave for m in model.get_submodule(name).modules()} | {head}
    chosen = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m not in left}
    for name, linear in chosen.items():
        packed = Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, compute, quant_type=KIND, device="meta"
        )
        packed.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=False, quant_type=KIND, blocksize=BLOCK
        )
        packed.bias = linear.bias
        model.set_submodule(name, packed)
    model.is_loaded_in_4bit = True  # peft asks for this


def _probe(linear: Any) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        linear(64, 64, bias=False, quant_type=KIND).to(device)(torch.ones(1, 64, device=device))
    except Exception as error:  # whatever a library says whose binary does not fit the machine
        raise ConvkitError(
            f"--use_qlora: bitsandbytes does not work on this machine's {device}: {' '.join(str(error).split())[:300]} "
            "See `python -m bitsandbytes`, or train with --use_lora alone."
        ) from None

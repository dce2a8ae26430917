"""Quantize frozen weights to 4 bits (NF4) for QLoRA."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError

QUANT_TYPE, BLOCK_SIZE = "nf4", 64
"""The 4-bit data type, and how many weights share a scale."""


def quantize_to_nf4(model: Any, compute: torch.dtype, leave: Sequence[str] = ()) -> None:
    """Replace all linear layers except the head by 4-bit layers, which are packed when the model moves to its device.

    Args:
        compute: dtype that weights are dequantized to for a product.
        leave: names of modules whose layers are not quantized.

    Raises:
        ConvkitError: bitsandbytes does not work on this machine.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    _check_bitsandbytes(Linear4bit)
    head = model.get_output_embeddings()
    left = {m for name in leave for m in model.get_submodule(name).modules()} | {head}
    chosen = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m not in left}
    options = {"quant_type": QUANT_TYPE}
    for name, linear in chosen.items():
        has_bias = linear.bias is not None
        packed = Linear4bit(linear.in_features, linear.out_features, has_bias, compute, device="meta", **options)
        packed.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=False, blocksize=BLOCK_SIZE, **options
        )
        packed.bias = linear.bias
        model.set_submodule(name, packed)
    model.is_loaded_in_4bit = True  # read by peft


def _check_bitsandbytes(linear: Any) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        linear(64, 64, bias=False, quant_type=QUANT_TYPE).to(device)(torch.ones(1, 64, device=device))
    except Exception as error:  # any exception of a library whose binary does not fit the machine
        raise ConvkitError(
            f"--use_qlora: bitsandbytes does not work on this machine's {device}: {' '.join(str(error).split())[:300]} "
            "See `python -m bitsandbytes`, or train with --use_lora alone."
        ) from None

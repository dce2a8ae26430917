"""An adapter into the weights of the checkpoint that it was trained on."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError
from convkit.train.models import save
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import check_base_model
from convkit.train.models.kernels.attention import VARLEN

_WEIGHTS = "adapter_model.safetensors"


def merge_adapter(base: ModelFamily, model: Path, adapter: Path, out: Path, dtype: str | None = None) -> str:
    """Write the merged model in the official layout; whole, or not at all.

    Args:
        base: of the checkpoint in `model`.
        adapter: in PEFT's layout, such as final/adapter of a run.
        out: made here; may exist if it is empty.
        dtype: of the weights that are written, such as "bfloat16"; the checkpoint's own if not given. It is added up in
            float32.

    Returns:
        The type of the weights.

    Raises:
        ConvkitError: `out` holds something, or the adapter is none, or is of another checkpoint.
    """
    save.require_empty(out, "--out")
    if not (adapter / _WEIGHTS).is_file():
        raise ConvkitError(f"{adapter} holds no {_WEIGHTS}. Name an adapter, such as final/adapter of a run.")
    check_base_model(model, adapter)
    loaded = base.load(torch.float32, VARLEN)
    merged = _merged(loaded, adapter)
    chosen = dtype or _own_dtype(model)
    save.save_model(out, merged, base, getattr(torch, chosen))
    return chosen


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks for attributes by names that are given up
            wrapped = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ConvkitError(
            f"{adapter} does not fit the model: {' '.join(str(error).split())[:300]} Name the checkpoint that it was "
            "trained on with --model."
        ) from None
    _refuse_tied(model, wrapped, adapter)
    return wrapped.merge_and_unload()


def _refuse_tied(model: Any, wrapped: nn.Module, adapter: Path) -> None:
    """A head that shares its weights with the embedding cannot take what was learnt for the head alone."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = any(name.endswith("lm_head.lora_A.default.weight") for name, _ in wrapped.named_parameters())
    if adapted and head.weight is embedding.weight:
        raise ConvkitError(
            f"{adapter} adapts the head of a model whose head and embedding are one: merged, the embedding would "
            "change too. Use the adapter beside the model, through peft."
        )


def _own_dtype(model: Path) -> str:
    from transformers import AutoConfig

    return str(
        AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False).dtype or torch.float32
    ).removeprefix("torch.")

"""Merge a LoRA adapter into the weights of its base model."""

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


def merge_adapter(family: ModelFamily, model: Path, adapter: Path, out: Path, dtype: str | None = None) -> str:
    """Write the merged model atomically, in the layout of the official checkpoints.

    Args:
        family: the family of `model`.
        model: the checkpoint that the adapter was trained on.
        adapter: a PEFT adapter, such as final/adapter of a run.
        out: an output directory that is empty or does not exist.
        dtype: the dtype of the written weights, such as "bfloat16". Default: the checkpoint's own. Merging is computed
            in float32.

    Returns:
        The dtype of the written weights.

    Raises:
        ConvkitError: `out` is not empty, or `adapter` is not an adapter of this checkpoint.
    """
    save.require_empty(out, "--out")
    if not (adapter / _WEIGHTS).is_file():
        raise ConvkitError(f"{adapter} has no {_WEIGHTS}. Pass an adapter directory, such as final/adapter of a run.")
    check_base_model(model, adapter)
    loaded = family.load(torch.float32, VARLEN)
    merged = _merge(loaded, adapter)
    chosen = dtype or _checkpoint_dtype(model)
    save.save_model(out, merged, family, getattr(torch, chosen))
    return chosen


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft reads deprecated attributes of transformers
            peft_model = PeftModel.from_pretrained(model, adapter)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ConvkitError(
            f"{adapter} does not fit the model: {' '.join(str(error).split())[:300]} Pass the checkpoint that it was "
            "trained on with --model."
        ) from None
    _check_untied(model, peft_model, adapter)
    return peft_model.merge_and_unload()


def _check_untied(model: Any, peft_model: nn.Module, adapter: Path) -> None:
    """Raise ConvkitError if the adapter adapts an output head that is tied to the input embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = any(name.endswith("lm_head.lora_A.default.weight") for name, _ in peft_model.named_parameters())
    if adapted and head.weight is embedding.weight:
        raise ConvkitError(
            f"{adapter} adapts the output head of a model with tied embeddings: merging would change the input "
            "embedding too. Load the adapter with peft instead."
        )


def _checkpoint_dtype(model: Path) -> str:
    from transformers import AutoConfig

    return str(
        AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False).dtype or torch.float32
    ).removeprefix("torch.")

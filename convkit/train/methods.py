"""What of a model is trained: all of it, all but what sees, or adapters of low rank."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError
from convkit.train.attention import VARLEN
from convkit.train.config import Config
from convkit.train.models.base import Adapter
from convkit.train.precision import dtype, narrow
from convkit.train.quantize import quantize


def load(adapter: Adapter, config: Config) -> Any:
    """The model on the CPU, ready for training.

    What is trained is in float32, whatever is computed in; what is not is in the type that is computed in, or in 4
    bits.

    Raises:
        ConvkitError: the checkpoint is not whole, or flash-attn cannot be had.
    """
    computed = dtype(config)
    whole = computed if config.use_lora and computed is not torch.float16 else torch.float32
    attention = "flash_attention_2" if config.use_flash_attention else VARLEN
    try:
        model = adapter.load(whole, attention)
    except ImportError as error:
        raise ConvkitError(
            f"--use_flash_attention cannot be had: {' '.join(str(error).split())} Leave the option out: torch has "
            "kernels of its own for packed documents."
        ) from None
    if config.freeze_vision_model:
        _freeze_vision(model, adapter)
    if config.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if config.use_lora:
        model = _with_lora(model, adapter, config)
    narrow(model, computed)
    return model


def _freeze_vision(model: nn.Module, adapter: Adapter) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(adapter.vision_modules):
            parameter.requires_grad_(False)


def lora_targets(model: nn.Module, ends: Sequence[str]) -> list[str]:
    """The linear layers whose names end so, but for those that are not trained at all."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and any(name == end or name.endswith(f".{end}") for end in ends)
    ]


def _with_lora(model: nn.Module, adapter: Adapter, config: Config) -> Any:
    from peft import LoraConfig, get_peft_model

    ends = [*adapter.lora_targets, *adapter.vision_lora_targets]
    chosen = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_rank * config.lora_alpha_ratio,
        lora_dropout=config.lora_dropout,
        init_lora_weights="gaussian",
        target_modules=lora_targets(model, ends),
    )
    if config.use_qlora:
        quantize(model, dtype(config))
    torch.manual_seed(config.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for attributes by names that transformers gave up
        return get_peft_model(model, chosen)


def own_name(name: str) -> str:
    """A parameter's name in the model itself, whatever is wrapped around it."""
    return name.removeprefix("base_model.model.")

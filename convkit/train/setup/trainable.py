"""Prepare a model for full, frozen-vision, LoRA or QLoRA fine-tuning."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.models.family import ModelFamily
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.kernels.float8 import convert_to_float8
from convkit.train.models.kernels.nf4 import quantize_to_nf4
from convkit.train.setup import activation_checkpointing
from convkit.train.setup.compilation import compile_layers
from convkit.train.setup.precision import cast_weights, compute_dtype

_TRAINED_COPY, _ORIGINAL = ".modules_to_save.default.", ".original_module."
"""In parameter names: peft's trained copy of a module, and the original module that it keeps beside the copy."""


def load_for_training(family: ModelFamily, config: Config) -> Any:
    """Load a model on the CPU, ready for training.

    Trainable weights are in float32 for any compute dtype, except with `--optim adamw_bf16`. Frozen weights are in the
    compute dtype, or in 4 bits with QLoRA.

    Raises:
        ConvkitError: the checkpoint is incomplete, or flash-attn does not work.
    """
    attention = "flash_attention_2" if config.use_flash_attention else VARLEN
    try:
        model = family.load(loaded_dtype(config), attention)
    except ImportError as error:
        raise ConvkitError(
            f"--use_flash_attention does not work here: {' '.join(str(error).split())} Leave the option out: torch has "
            "its own attention kernels for packed sequences."
        ) from None
    return prepare_for_training(model, family, config)


def loaded_dtype(config: Config) -> torch.dtype:
    """Return the dtype that weights are loaded in."""
    small = (config.use_lora and not config.full_vision_model) or config.optim == "adamw_bf16"
    return compute_dtype(config) if small and config.precision != "float16" else torch.float32


def prepare_for_training(model: Any, family: ModelFamily, config: Config) -> Any:
    """Prepare a model for training whose weights have the dtype `loaded_dtype`."""
    if config.freeze_vision_model:
        _freeze_vision(model, family)
    if config.gradient_checkpointing != "none":
        activation_checkpointing.enable_checkpointing(model)
    if config.use_lora:
        model = _add_lora(model, family, config)
    everything = config.optim == "adamw_bf16"
    cast_weights(
        model,
        compute_dtype(config),
        trained=everything,
        linear_only=not everything and (config.fp16 or not config.use_lora),
        leave="" if everything else _TRAINED_COPY,  # also their unused layers stay in float32
    )
    if config.fp8:
        convert_to_float8(_adapted_base_layers(model, leave=family.vision_modules))
    if config.compile and torch.cuda.is_available() and not config.deterministic and not config.sharding:
        compile_layers(model, family.compiled_layers)
    return model


def _freeze_vision(model: nn.Module, family: ModelFamily) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(family.vision_modules):
            parameter.requires_grad_(False)


def lora_targets(model: nn.Module, ends: Sequence[str]) -> list[str]:
    """Return the names of trainable linear layers that end with one of these names."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and any(name == end or name.endswith(f".{end}") for end in ends)
    ]


def _add_lora(model: nn.Module, family: ModelFamily, config: Config) -> Any:
    from peft import LoraConfig, get_peft_model

    from convkit.train.models.kernels.lora import fuse_lora

    targets = lora_targets(model, [*family.lora_targets, *family.vision_lora_targets])
    in_full = _vision_modules(model, family) if config.full_vision_model else []
    unused = {name for name, p in model.named_parameters() if not p.requires_grad}
    chosen = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_rank * config.lora_alpha_ratio,
        lora_dropout=config.lora_dropout,
        init_lora_weights="gaussian",
        target_modules=[name for name in targets if not _is_inside(name, in_full)],
        modules_to_save=in_full or None,
    )
    if config.use_qlora:
        quantize_to_nf4(model, compute_dtype(config), leave=in_full)
    torch.manual_seed(config.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads attributes that transformers has deprecated
        wrapped = get_peft_model(model, chosen)
    for name, parameter in wrapped.named_parameters():
        if unwrapped_name(name) in unused and _TRAINED_COPY in name:
            parameter.requires_grad_(False)  # peft makes all parameters of a copied module trainable
    fuse_lora(wrapped)
    return wrapped


def _adapted_base_layers(model: Any, leave: tuple[str, ...]) -> list[nn.Module]:
    """Return the base layers under LoRA adapters, except the head and modules with one of these name prefixes."""
    from peft.tuners.lora import LoraLayer

    head = model.get_output_embeddings()
    return [
        module.get_base_layer()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and module is not head and not unwrapped_name(name).startswith(leave)
    ]


def _vision_modules(model: nn.Module, family: ModelFamily) -> list[str]:
    return [name for name, _ in model.named_modules() if name in family.vision_modules]


def _is_inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def unwrapped_name(name: str) -> str:
    """Return a parameter's name in the model itself, without the prefixes that peft adds."""
    return name.removeprefix("base_model.model.").replace(_TRAINED_COPY, ".")


def has_trained_copy(name: str) -> bool:
    """Return whether peft trains a copy of this parameter in its place."""
    return _ORIGINAL in name

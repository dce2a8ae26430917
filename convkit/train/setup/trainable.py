"""What of a model is trained: all of it, all but what sees, or adapters of low rank."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.models.family import ModelFamily
from convkit.train.models.kernels.attention import VARLEN
from convkit.train.models.kernels.float8 import shrink
from convkit.train.models.kernels.nf4 import quantize
from convkit.train.setup import activation_checkpointing
from convkit.train.setup.compilation import compile_layers
from convkit.train.setup.precision import dtype, narrow

_IN_FULL, _ORIGINAL = ".modules_to_save.default.", ".original_module."
"""In the names of what peft trains in full, and of what it keeps beside it as it was."""


def load(family: ModelFamily, config: Config) -> Any:
    """The model on the CPU, ready for training.

    What is trained is in float32, whatever is computed in, but for `--optim adamw_bf16`; what is not is in the type
    that is computed in, or in 4 bits.

    Raises:
        ConvkitError: the checkpoint is not whole, or flash-attn cannot be had.
    """
    attention = "flash_attention_2" if config.use_flash_attention else VARLEN
    try:
        model = family.load(loaded_dtype(config), attention)
    except ImportError as error:
        raise ConvkitError(
            f"--use_flash_attention cannot be had: {' '.join(str(error).split())} Leave the option out: torch has "
            "kernels of its own for packed documents."
        ) from None
    return prepare(model, family, config)


def loaded_dtype(config: Config) -> torch.dtype:
    """The type that weights are loaded in."""
    small = (config.use_lora and not config.full_vision_model) or config.optim == "adamw_bf16"
    return dtype(config) if small and config.precision != "float16" else torch.float32


def prepare(model: Any, family: ModelFamily, config: Config) -> Any:
    """Make a model ready for training that has its weights in `loaded_dtype`."""
    if config.freeze_vision_model:
        _freeze_vision(model, family)
    if config.gradient_checkpointing != "none":
        activation_checkpointing.enable(model)
    if config.use_lora:
        model = _with_lora(model, family, config)
    everything = config.optim == "adamw_bf16"
    narrow(
        model,
        dtype(config),
        trained=everything,
        matrices=not everything and (config.fp16 or not config.use_lora),
        leave="" if everything else _IN_FULL,  # of a module that is trained in float32, layers that nobody uses
    )
    if config.fp8:
        shrink(_under_adapters(model, leave=family.vision_modules))
    if config.compile and torch.cuda.is_available() and not config.deterministic and not config.sharding:
        compile_layers(model, family.compiled_layers)
    return model


def _freeze_vision(model: nn.Module, family: ModelFamily) -> None:
    for name, parameter in model.named_parameters():
        if name.startswith(family.vision_modules):
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


def _with_lora(model: nn.Module, family: ModelFamily, config: Config) -> Any:
    from peft import LoraConfig, get_peft_model

    from convkit.train.models.kernels.lora import fuse

    targets = lora_targets(model, [*family.lora_targets, *family.vision_lora_targets])
    in_full = _modules_that_see(model, family) if config.full_vision_model else []
    unused = {name for name, p in model.named_parameters() if not p.requires_grad}
    chosen = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_rank,
        lora_alpha=config.lora_rank * config.lora_alpha_ratio,
        lora_dropout=config.lora_dropout,
        init_lora_weights="gaussian",
        target_modules=[name for name in targets if not _inside(name, in_full)],
        modules_to_save=in_full or None,
    )
    if config.use_qlora:
        quantize(model, dtype(config), leave=in_full)
    torch.manual_seed(config.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for attributes by names that transformers gave up
        wrapped = get_peft_model(model, chosen)
    for name, parameter in wrapped.named_parameters():
        if own_name(name) in unused and _IN_FULL in name:
            parameter.requires_grad_(False)  # peft trains all of a module
    fuse(wrapped)
    return wrapped


def _under_adapters(model: Any, leave: tuple[str, ...]) -> list[nn.Module]:
    """The layers that have adapters, but for the head, and those whose own names begin so."""
    from peft.tuners.lora import LoraLayer

    head = model.get_output_embeddings()
    return [
        module.get_base_layer()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and module is not head and not own_name(name).startswith(leave)
    ]


def _modules_that_see(model: nn.Module, family: ModelFamily) -> list[str]:
    return [name for name, _ in model.named_modules() if name in family.vision_modules]


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def own_name(name: str) -> str:
    """A parameter's name in the model itself, whatever is wrapped around it."""
    return name.removeprefix("base_model.model.").replace(_IN_FULL, ".")


def is_replaced(name: str) -> bool:
    """Whether the model computes with a trained copy in a parameter's place."""
    return _ORIGINAL in name

"""Model families. Importing this makes Phi-3-vision known to transformers' Auto classes, without remote code."""

import re
from contextlib import suppress
from pathlib import Path

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from convkit.errors import ConvkitError
from convkit.train.models import files
from convkit.train.models.family import ModelFamily
from convkit.train.models.hf.families import FAMILIES
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.kernels import attention
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import Phi3VProcessor

MODEL_FAMILIES: dict[str, type[Phi3VFamily] | type[HuggingFaceFamily]] = {
    Phi3VConfig.model_type: Phi3VFamily,
    **dict.fromkeys(FAMILIES, HuggingFaceFamily),
}
"""By the `model_type` of config.json."""


def model_family(directory: Path, num_crops: int | None = None) -> ModelFamily:
    """The adapter of a checkpoint's family.

    Raises:
        ConvkitError: there is no checkpoint, or its family is not known.
    """
    if not directory.is_dir():
        raise ConvkitError(f"There is no directory {directory}. {_how_to_get(str(directory))}")
    file = directory / "config.json"
    model_type = files.read(file).get("model_type")
    if not isinstance(model_type, str):
        raise ConvkitError(
            f"{file} does not say what kind of model this is: it is missing or has no model_type. Name the directory "
            "of a checkpoint."
        )
    if model_type not in MODEL_FAMILIES:
        raise ConvkitError(
            f"{file} has model_type {model_type!r}, which convkit cannot train. It can train: "
            f"{', '.join(MODEL_FAMILIES)}."
        )
    return MODEL_FAMILIES[model_type](directory, num_crops)


def _how_to_get(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return "Name the directory of a checkpoint with --model."
    folder = name.partition("/")[2]
    return (
        "A model of the Hugging Face hub is not downloaded unasked. If this is the name of one, run: "
        f"hf download {name} --local-dir {folder}; and then say --model {folder}."
    )


_FIRST, _BEYOND = (5, 17), (5, 24)
"""Of transformers: 5.24 calls the cache of keys and values by another name, and generation would go wrong unseen."""


def _require_version(installed: str) -> None:
    """Raises ConvkitError where transformers is not one that convkit was made for."""
    major, minor = installed.split(".")[:2]
    if not _FIRST <= (int(major), int(minor)) < _BEYOND:
        known = [".".join(map(str, version)) for version in (_FIRST, _BEYOND)]
        raise ConvkitError(
            f"transformers {installed} is installed, but convkit needs one from {known[0]} on, older than {known[1]}. "
            f"Run: pip install 'transformers>={known[0]},<{known[1]}'"
        )


def _register() -> None:
    attention.register()
    AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig)
    with suppress(ImportError):  # older releases lend AutoImageProcessor to torchvision's owners only
        AutoImageProcessor.register(Phi3VConfig, slow_image_processor_class=Phi3VImageProcessor)
    AutoProcessor.register(Phi3VConfig, Phi3VProcessor)
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        auto.register(Phi3VConfig, Phi3VForCausalLM)


_require_version(transformers.__version__)
_register()

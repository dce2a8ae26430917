"""Register Phi-3-vision and convkit's attention with transformers, so that no remote code is needed."""

from contextlib import suppress

import transformers
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from convkit.errors import ConvkitError
from convkit.train.models.kernels import attention
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import Phi3VProcessor

_MIN_VERSION, _UNSUPPORTED_VERSION = (5, 17), (5, 24)
"""Supported transformers versions. 5.24 renamed the key-value cache argument: generation would be silently wrong."""


def register() -> None:
    """Add Phi-3-vision to transformers' Auto classes, and `varlen` to its attention implementations.

    Raises:
        ConvkitError: the installed transformers version is not supported.
    """
    check_version(transformers.__version__)
    attention.register()
    AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig)
    with suppress(ImportError):  # before 5.23, AutoImageProcessor needs torchvision
        AutoImageProcessor.register(Phi3VConfig, slow_image_processor_class=Phi3VImageProcessor)
    AutoProcessor.register(Phi3VConfig, Phi3VProcessor)
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        auto.register(Phi3VConfig, Phi3VForCausalLM)


def check_version(installed: str) -> None:
    """Raise ConvkitError if convkit does not support this transformers version."""
    major, minor = installed.split(".")[:2]
    if not _MIN_VERSION <= (int(major), int(minor)) < _UNSUPPORTED_VERSION:
        lowest, beyond = (".".join(map(str, version)) for version in (_MIN_VERSION, _UNSUPPORTED_VERSION))
        raise ConvkitError(
            f"transformers {installed} is installed, but convkit needs at least {lowest} and below {beyond}. "
            f"Run: pip install 'transformers>={lowest},<{beyond}'"
        )

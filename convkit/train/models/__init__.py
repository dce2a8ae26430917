"""Model families. Importing this makes Phi-3-vision known to transformers' Auto classes, without remote code."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from convkit.train import attention
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import Phi3VProcessor


def _register() -> None:
    attention.register()
    AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig)
    AutoImageProcessor.register(Phi3VConfig, slow_image_processor_class=Phi3VImageProcessor)
    AutoProcessor.register(Phi3VConfig, Phi3VProcessor)
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        auto.register(Phi3VConfig, Phi3VForCausalLM)


_register()

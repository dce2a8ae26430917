"""What cannot be asked of transformers: the facts of each model family that the adapter knows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

LANGUAGE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
"""The linear layers of a language model of Llama's kind."""
_SIGLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

Options = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family of transformers."""

    processor: str
    """The class that writes images into the text."""
    images: str
    """The module of the image processor that works with Pillow alone."""
    profile: str | None
    """See `convkit.profiles`; None where validation knows nothing of the model."""
    profile_options: Callable[[Any], Options] = lambda processor: {}
    """The profile's options, from the processor."""
    wrappers: int = 0
    """Tokens that the profile counts for an image, and the chat template writes."""
    image_options: dict[str, Any] = field(default_factory=dict)
    """What the image processor is asked for beside its configuration."""
    vision_modules: tuple[str, ...]
    vision_lora_targets: tuple[str, ...]
    unused: tuple[str, ...] = ()
    """Modules in the checkpoint that the model does not use."""
    token_types: Literal["token_type_ids", "mm_token_type_ids"] | None = None
    """The input that is 1 where an image is."""


def _idefics3(processor: Any) -> Options:
    images = processor.image_processor
    longest, tile = images.size["longest_edge"], images.max_image_size["longest_edge"]
    return {
        "longest_edge": longest if images.do_image_splitting else tile,
        "max_image_size": tile,
        "image_seq_len": processor.image_seq_len,
    }


_IDEFICS3: dict[str, Any] = {
    "processor": "Idefics3Processor",  # SmolVLM's own writes the same, but asks for a package to spell numbers with
    "profile_options": _idefics3,
    "image_options": {"return_row_col_info": True},
    "vision_modules": ("model.vision_model", "model.connector"),
    "vision_lora_targets": (*_SIGLIP, "modality_projection.proj"),
}
FAMILIES: dict[str, Family] = {
    "idefics3": Family(images="idefics3", profile="idefics3", **_IDEFICS3),
    "smolvlm": Family(images="smolvlm", profile="smolvlm", **_IDEFICS3),
}
"""By the `model_type` of config.json."""

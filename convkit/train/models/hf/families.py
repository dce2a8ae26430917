"""Specifications of the supported model families: facts that transformers does not provide."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

LANGUAGE_LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
"""The linear layers of a Llama-style language model."""
_SIGLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

Options = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """The specification of a model family."""

    processor: str
    """The module and class of the processor, which expands image tokens in the text. They are imported by module,
    because transformers exports some of them only with torchvision."""
    image_processor: str
    """The model name in the module of the image processor for Pillow."""
    profile: str
    """The token profile, see `convkit.profiles`."""
    profile_options: Callable[[Any], Options] = lambda processor: {}
    """Returns the profile's options for a processor."""
    wrapper_tokens: int = 0
    """The number of tokens per image that the profile counts but the chat template adds."""
    image_frame: tuple[str, str] = ("", "")
    """Text that the processor adds around an image, but the profile counts as part of its template."""
    image_options: dict[str, Any] = field(default_factory=dict)
    """Options that are passed to the image processor in addition to its configuration."""
    vision_modules: tuple[str, ...]
    vision_lora_targets: tuple[str, ...]
    features: str | None = None
    """The module whose output must be cast to the dtype of text embeddings, because autocast lowers its precision and
    transformers 5.17 does not cast it back."""
    unused: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Returns parameter name prefixes of checkpoint modules that the model does not use."""
    token_types: Literal["token_type_ids", "mm_token_type_ids", "suffix"] | None = None
    """The name of the input that is 1 at image tokens. "suffix" means `token_type_ids` with 1 at answer tokens."""
    chat_template: str | None = None
    """A chat template for checkpoints without one."""
    single_turn: bool = False
    """Attention is bidirectional before the last answer, so only that answer can be supervised."""


def _idefics3(processor: Any) -> Options:
    images = processor.image_processor
    longest, tile = images.size["longest_edge"], images.max_image_size["longest_edge"]
    return {
        "longest_edge": longest if images.do_image_splitting else tile,
        "max_image_size": tile,
        "image_seq_len": processor.image_seq_len,
    }


_IDEFICS3: dict[str, Any] = {
    # SmolVLM's processor does the same, but requires the package num2words.
    "processor": "transformers.models.idefics3.processing_idefics3:Idefics3Processor",
    "profile_options": _idefics3,
    "image_options": {"return_row_col_info": True},
    "vision_modules": ("model.vision_model", "model.connector"),
    "features": "model.connector",
    "vision_lora_targets": (*_SIGLIP, "modality_projection.proj"),
}


def _llava(processor: Any) -> Options:
    return {"crop_size": processor.image_processor.crop_size["height"], "patch_size": processor.patch_size}


def _onevision(processor: Any) -> Options:
    side = processor.image_processor.size["height"]
    return {
        "patch_size": side // math.isqrt(processor.num_image_tokens),
        "crop_size": side,
        "num_image_tokens": processor.num_image_tokens,
        "anyres_max": int(processor.vision_aspect_ratio.rpartition("_")[2]),
    }


def _qwen(processor: Any) -> Options:
    images = processor.image_processor
    return {
        "patch_size": images.patch_size,
        "merge_size": images.merge_size,
        "min_pixels": images.size["shortest_edge"],
        "max_pixels": images.size["longest_edge"],
    }


def _internvl(processor: Any) -> Options:
    images = processor.image_processor
    return {
        "size": images.size["height"],
        "min_patches": images.min_patches,
        "max_patches": images.max_patches,
        "image_seq_length": processor.image_seq_length,
    }


def _gemma(processor: Any) -> Options:
    return {"image_seq_length": processor.image_seq_length}


def _pixtral(processor: Any) -> Options:
    return {
        "patch_size": processor.patch_size,
        "spatial_merge_size": processor.spatial_merge_size,
        "longest_edge": processor.image_processor.size["longest_edge"],
    }


def _layers_after_features(config: Any) -> tuple[str, ...]:
    """Return the vision tower layers after the one whose features are used; they are never run."""
    layer, layers = config.vision_feature_layer, config.vision_config.num_hidden_layers
    first = layers if not isinstance(layer, int) else layers + layer + 1 if layer < 0 else layer
    tower = "model.vision_tower"
    names = [f"{tower}.{inner}encoder.layers.{i}." for i in range(first, layers) for inner in ("", "vision_model.")]
    return (*names, *(f"{tower}.{inner}{end}" for inner in ("", "vision_model.") for end in ("post_layernorm", "head")))


def _no_head(config: Any) -> tuple[str, ...]:
    return ("model.vision_tower.head", "model.vision_tower.vision_model.head")


_TOWER = ("model.vision_tower", "model.multi_modal_projector")
_PROJECTOR = ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2")
_QWEN: dict[str, Any] = {
    "image_processor": "qwen2_vl",
    "profile_options": _qwen,
    "wrapper_tokens": 2,
    "vision_modules": ("model.visual",),
    "token_types": "mm_token_type_ids",
}
_PIXTRAL: dict[str, Any] = {
    "processor": "convkit.train.models.hf.pixtral:PixtralProcessor",
    "image_processor": "pixtral",
    "profile_options": _pixtral,
    "vision_modules": _TOWER,
}
FAMILIES: dict[str, FamilySpec] = {
    "idefics3": FamilySpec(image_processor="idefics3", profile="idefics3", **_IDEFICS3),
    "smolvlm": FamilySpec(image_processor="smolvlm", profile="smolvlm", **_IDEFICS3),
    "llava": FamilySpec(
        processor="transformers.models.llava.processing_llava:LlavaProcessor",
        image_processor="llava",
        profile="llava-1.5",
        profile_options=_llava,
        vision_modules=_TOWER,
        vision_lora_targets=(*_SIGLIP, *_PROJECTOR),
        unused=_layers_after_features,
    ),
    "llava_onevision": FamilySpec(
        processor="transformers.models.llava_onevision.processing_llava_onevision:LlavaOnevisionProcessor",
        image_processor="llava_onevision",
        profile="llava-onevision",
        profile_options=_onevision,
        vision_modules=(*_TOWER, "model.image_newline"),
        vision_lora_targets=(*_SIGLIP, *_PROJECTOR),
        unused=_layers_after_features,
    ),
    "qwen2_vl": FamilySpec(
        processor="transformers.models.qwen2_vl.processing_qwen2_vl:Qwen2VLProcessor",
        profile="qwen2-vl",
        vision_lora_targets=("attn.qkv", "attn.proj", "fc1", "fc2", "mlp.0", "mlp.2"),
        **_QWEN,
    ),
    "qwen2_5_vl": FamilySpec(
        processor="transformers.models.qwen2_5_vl.processing_qwen2_5_vl:Qwen2_5_VLProcessor",
        profile="qwen2.5-vl",
        vision_lora_targets=("attn.qkv", "attn.proj", "mlp.0", "mlp.2"),
        **_QWEN,
    ),
    "qwen3_vl": FamilySpec(
        processor="transformers.models.qwen3_vl.processing_qwen3_vl:Qwen3VLProcessor",
        profile="qwen3-vl",
        vision_lora_targets=("attn.qkv", "attn.proj", "linear_fc1", "linear_fc2"),
        **_QWEN,
    ),
    "internvl": FamilySpec(
        processor="transformers.models.internvl.processing_internvl:InternVLProcessor",
        image_processor="got_ocr2",
        profile="internvl3",
        profile_options=_internvl,
        image_options={"crop_to_patches": True},
        vision_modules=_TOWER,
        vision_lora_targets=("projection_layer", "fc1", "fc2", *_PROJECTOR),
    ),
    "gemma3": FamilySpec(
        processor="transformers.models.gemma3.processing_gemma3:Gemma3Processor",
        image_processor="gemma3",
        profile="gemma-3",
        profile_options=_gemma,
        image_frame=("\n\n", "\n\n"),
        image_options={"do_pan_and_scan": False},
        vision_modules=_TOWER,
        vision_lora_targets=_SIGLIP,
        unused=_no_head,
        token_types="token_type_ids",
    ),
    "paligemma": FamilySpec(
        processor="transformers.models.paligemma.processing_paligemma:PaliGemmaProcessor",
        image_processor="siglip",
        profile="paligemma",
        profile_options=_gemma,
        vision_modules=_TOWER,
        vision_lora_targets=(*_SIGLIP, "multi_modal_projector.linear"),
        unused=_no_head,
        token_types="suffix",
        chat_template=(
            "{% set parts = messages | map(attribute='content') | sum(start=[]) %}"
            "{% for part in parts if part['type'] == 'image' %}<image>{% endfor %}{{ bos_token }}"
            "{% for message in messages %}{% for part in message['content'] if part['type'] == 'text' %}"
            "{{ part['text'] }}{% endfor %}{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
        ),
        single_turn=True,
    ),
    "mistral3": FamilySpec(
        profile="mistral-3", vision_lora_targets=("patch_merger.merging_layer", *_PROJECTOR), **_PIXTRAL
    ),
    "pixtral": FamilySpec(profile="pixtral", vision_lora_targets=_PROJECTOR, **_PIXTRAL),
}
"""The specification for each `model_type` of config.json; see `family_spec`."""


def family_spec(config: dict[str, Any]) -> FamilySpec:
    """Return the specification for a config.json. Pixtral has `model_type` llava with another vision tower."""
    tower = config.get("vision_config", {}).get("model_type")
    return FAMILIES["pixtral" if (config["model_type"], tower) == ("llava", "pixtral") else config["model_type"]]

"""Build the processor of each model family from its configuration, with a small tokenizer.

The tokenizer is byte-level without merges, plus the control tokens of the family.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from convkit.profiles import get_profile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", reason="needs the extra train: pip install 'convkit-vlm[train]'")


TAGS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]

QWEN = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]

VISION = "<|vision_start|><|image_pad|><|vision_end|>"

IDEFICS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<video>"]


def tokenizer(tokens: list[str], **named: str) -> Any:
    """Return a byte-level tokenizer with these control tokens, and with SmolVLM's token for two newlines."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, "ĊĊ"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(tokens)
    result = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=tokens[0], extra_special_tokens=named)
    for name, token in named.items():
        setattr(result, name, token)
        setattr(result, f"{name}_id", result.convert_tokens_to_ids(token))
    return result


def images_only_processor(cls: str, images: Any, tokens: Any, **options: Any) -> Any:
    """Return a processor for images only: video processors need torchvision, which is not installed."""
    import transformers
    from transformers.processing_utils import ProcessorMixin

    class ImagesOnly(getattr(transformers, cls)):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name != "video_processor":
                return ProcessorMixin.check_argument_for_proper_class(self, argument_name, argument)
            return None

    ImagesOnly.__name__ = cls
    return ImagesOnly(image_processor=images, tokenizer=tokens, **options)


def pillow_processor(module: str, cls: str, **options: Any) -> Any:
    """Return the image processor that needs only Pillow."""
    return getattr(import_module(f"transformers.models.{module}.image_processing_pil_{module}"), cls)(**options)


def qwen(profile: Any, cls: str) -> tuple[Any, str]:
    images = pillow_processor(
        "qwen2_vl",
        "Qwen2VLImageProcessorPil",
        patch_size=profile.patch_size,
        merge_size=profile.merge_size,
        size={"shortest_edge": profile.min_pixels, "longest_edge": profile.max_pixels},
    )
    return images_only_processor(cls, images, tokenizer(QWEN), video_processor=None), VISION


def idefics(profile: Any, cls: str) -> tuple[Any, str]:
    options = {
        "size": {"longest_edge": profile.longest_edge},
        "max_image_size": {"longest_edge": profile.max_image_size},
    }
    if cls == "Idefics3Processor":
        images = pillow_processor("idefics3", "Idefics3ImageProcessorPil", **options)
        return images_only_processor(cls, images, tokenizer(IDEFICS), image_seq_len=profile.image_seq_len), "<image>"
    import transformers.models.smolvlm.processing_smolvlm as module

    module.num2words = module.num2words or str  # required by the constructor, but used only for videos
    images = pillow_processor("smolvlm", "SmolVLMImageProcessorPil", **options)
    tokens = tokenizer([*IDEFICS, "<global-img>", *TAGS])
    return images_only_processor(
        cls, images, tokens, video_processor=None, image_seq_len=profile.image_seq_len
    ), "<image>"


def llava(profile: Any, cls: str) -> tuple[Any, str]:
    square = {"height": profile.crop_size, "width": profile.crop_size}
    more = {"patch_size": profile.patch_size, "vision_feature_select_strategy": "default"}
    tokens = tokenizer(["<image>", "<video>"], image_token="<image>")
    if cls == "LlavaProcessor":
        images = pillow_processor(
            "llava", "LlavaImageProcessorPil", size={"shortest_edge": profile.crop_size}, crop_size=square
        )
        return images_only_processor(cls, images, tokens, num_additional_image_tokens=1, **more), "<image>"
    pinpoints = [[rows * profile.crop_size, columns * profile.crop_size] for rows, columns in profile.grid_pinpoints]
    if cls == "LlavaNextProcessor":
        images = pillow_processor(
            "llava_next",
            "LlavaNextImageProcessorPil",
            size={"shortest_edge": profile.crop_size},
            crop_size=square,
            image_grid_pinpoints=pinpoints,
        )
        return images_only_processor(cls, images, tokens, num_additional_image_tokens=1, **more), "<image>"
    images = pillow_processor(
        "llava_onevision", "LlavaOnevisionImageProcessorPil", size=square, image_grid_pinpoints=pinpoints
    )
    more = {"num_image_tokens": profile.num_image_tokens, "vision_aspect_ratio": f"anyres_max_{profile.anyres_max}"}
    return (
        images_only_processor(cls, images, tokens, video_processor=None, vision_feature_select_strategy="full", **more),
        "<image>",
    )


def internvl(profile: Any, cls: str) -> tuple[Any, str]:
    images = pillow_processor(
        "got_ocr2",
        "GotOcr2ImageProcessorPil",
        size={"height": profile.size, "width": profile.size},
        min_patches=profile.min_patches,
        max_patches=profile.max_patches,
    )
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokens = tokenizer(list(names.values()), **names)
    options = {"video_processor": None, "image_seq_length": profile.image_seq_length}
    return images_only_processor(cls, images, tokens, **options), "<IMG_CONTEXT>"


def gemma3(profile: Any, cls: str) -> tuple[Any, str]:
    images = pillow_processor("gemma3", "Gemma3ImageProcessorPil")
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokens = tokenizer(list(names.values()), **names)
    return images_only_processor(cls, images, tokens, image_seq_length=profile.image_seq_length), "<start_of_image>"


def paligemma(profile: Any, cls: str) -> tuple[Any, str]:
    images = pillow_processor("siglip", "SiglipImageProcessorPil", image_seq_length=profile.image_seq_length)
    tokens = tokenizer(["<image>", "<bos>"], image_token="<image>", bos_token="<bos>")
    return images_only_processor(cls, images, tokens), "<image>"


def pixtral(profile: Any, cls: str) -> tuple[Any, str]:
    name = "transformers.models.pixtral.{}_pixtral"
    with pytest.MonkeyPatch.context() as monkeypatch:
        # It imports a function that the modules for torchvision and for Pillow both have.
        monkeypatch.setitem(
            sys.modules, name.format("image_processing"), import_module(name.format("image_processing_pil"))
        )
        monkeypatch.setattr("transformers.PixtralProcessor", import_module(name.format("processing")).PixtralProcessor)
        return _pixtral(profile, cls)


def _pixtral(profile: Any, cls: str) -> tuple[Any, str]:
    images = pillow_processor("pixtral", "PixtralImageProcessorPil", size={"longest_edge": profile.longest_edge})
    tokens = tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    cells = {"patch_size": profile.patch_size, "spatial_merge_size": profile.spatial_merge_size}
    return images_only_processor(cls, images, tokens, **cells), "[IMG]"


BUILDERS: dict[str, tuple[Callable[[Any, str], tuple[Any, str]], str]] = {
    "qwen2-vl": (qwen, "Qwen2VLProcessor"),
    "qwen2.5-vl": (qwen, "Qwen2_5_VLProcessor"),
    "qwen3-vl": (qwen, "Qwen3VLProcessor"),
    "smolvlm": (idefics, "SmolVLMProcessor"),
    "idefics3": (idefics, "Idefics3Processor"),
    "llava-1.5": (llava, "LlavaProcessor"),
    "llava-next": (llava, "LlavaNextProcessor"),
    "llava-onevision": (llava, "LlavaOnevisionProcessor"),
    "internvl3": (internvl, "InternVLProcessor"),
    "gemma-3": (gemma3, "Gemma3Processor"),
    "paligemma": (paligemma, "PaliGemmaProcessor"),
    "pixtral": (pixtral, "PixtralProcessor"),
    "mistral-3": (pixtral, "PixtralProcessor"),
}


@cache
def build_processor(spec: str) -> tuple[Any, str]:
    build, cls = BUILDERS[spec.partition(":")[0]]
    return build(get_profile(spec), cls)

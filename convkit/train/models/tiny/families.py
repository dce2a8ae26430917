"""Tiny models of the families in transformers: two layers per tower, images of 32 to 64 pixels per side."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers

from convkit.train.models.tiny.tokenizer import train_byte_level_bpe

_WIDTH = 64
_IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_DEFAULT_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)
_VISION = "<|vision_start|><|image_pad|><|vision_end|>"
_THEN_TEXT = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"


def _parts(image: str) -> str:
    """Return a template for the images and texts of a message in their order."""
    part = f"{{{{ '{image}' if part['type'] == 'image' else part['text'] }}}}"
    return f"{{% for part in message['content'] %}}{part}{{% endfor %}}"


def _chatml(image: str, before: str = "") -> str:
    return (
        f"{{% for message in messages %}}{before}<|im_start|>{{{{ message['role'] }}}}\n{_parts(image)}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


@dataclass(frozen=True, kw_only=True)
class _TinySpec:
    """The specification of a tiny checkpoint."""

    config: str
    """The prefix of the class names in transformers."""
    controls: list[str]
    template: str | None
    image_processor: tuple[str, str, dict[str, Any]]
    """The module, class and options of the image processor."""
    processor: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any]
    text: dict[str, Any]
    named: dict[str, str]
    """Named tokens of the tokenizer, such as `eos_token`."""
    ids: dict[str, str]
    """Configuration keys for token ids, and their tokens."""
    adds_bos: bool = False


_TEXT = {
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_SQUARE = {"height": 32, "width": 32}
_QWEN: dict[str, Any] = {
    "controls": [*_IM, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "named": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "ids": {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
}


def _qwen_image_processor(patch_size: int) -> tuple[str, str, dict[str, Any]]:
    cell = 2 * patch_size
    limits = {"shortest_edge": 4 * cell**2, "longest_edge": 9 * cell**2}
    return "qwen2_vl", "Qwen2VLImageProcessorPil", {"patch_size": patch_size, "merge_size": 2, "size": limits}


_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_VISUAL = {"depth": 2, "num_heads": 2, "patch_size": 8, "intermediate_size": 64}
_MISTRAL: dict[str, Any] = {
    "controls": [
        *("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        *("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    ],
    "template": (
        "<s>{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM_PROMPT]"
        + _parts("[IMG]")
        + "[/SYSTEM_PROMPT]{% elif message['role'] == 'user' %}[INST]"
        + _parts("[IMG]")
        + "[/INST]{% else %}"
        + _parts("[IMG]")
        + "</s>{% endif %}{% endfor %}"
    ),
    "named": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "ids": {"image_token_index": "[IMG]"},
}
_GEMMA_NAMED = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}

_FAMILIES: dict[str, _TinySpec] = {
    "llava": _TinySpec(
        config="Llava",
        controls=["<unk>", "<s>", "</s>", "<image>", "<pad>"],
        template=(
            "{% for message in messages %}{{ '' if message['role'] == 'system' else message['role'] | upper + ': ' }}"
            + "{% for part in message['content'] if part['type'] == 'image' %}<image>{{ '\n' }}{% endfor %}"
            + _THEN_TEXT
            + " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
        ),
        image_processor=("llava", "LlavaImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": _SQUARE}),
        processor={"patch_size": 8, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"},
        options={"image_seq_length": 16},
        vision={"model_type": "clip_vision_model", **_TOWER, "projection_dim": 32},
        text={"model_type": "llama", **_TEXT},
        named={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        ids={"image_token_index": "<image>"},
        adds_bos=True,
    ),
    "llava_onevision": _TinySpec(
        config="LlavaOnevision",
        controls=[*_IM, "<image>", "<video>"],
        template=(
            "{% for message in messages %}<|im_start|>{{ message['role'] }} "
            + "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}{{ '\n' }}"
            + _THEN_TEXT
            + "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
        image_processor=(
            "llava_onevision",
            "LlavaOnevisionImageProcessorPil",
            {"size": _SQUARE, "image_grid_pinpoints": [[32 * h, 32 * w] for h in range(1, 7) for w in range(1, 7)]},
        ),
        processor={
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
        },
        options={"image_grid_pinpoints": [[32 * h, 32 * w] for h in range(1, 7) for w in range(1, 7)]},
        vision={"model_type": "siglip_vision_model", **_TOWER, "vision_use_head": False},
        text={"model_type": "qwen2", **_TEXT},
        named={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ids={"image_token_index": "<image>", "video_token_index": "<video>"},
    ),
    "qwen2_vl": _TinySpec(
        config="Qwen2VL",
        template=_chatml(_VISION, _DEFAULT_SYSTEM),
        image_processor=_qwen_image_processor(8),
        vision={**_VISUAL, "embed_dim": 32, "hidden_size": _WIDTH, "mlp_ratio": 2},
        text={**_TEXT, "rope_parameters": _ROPE},
        **_QWEN,
    ),
    "qwen2_5_vl": _TinySpec(
        config="Qwen2_5_VL",
        template=_chatml(_VISION, _DEFAULT_SYSTEM),
        image_processor=_qwen_image_processor(8),
        vision={
            **_VISUAL,
            "hidden_size": 32,
            "out_hidden_size": _WIDTH,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        text={**_TEXT, "rope_parameters": _ROPE},
        **_QWEN,
    ),
    "qwen3_vl": _TinySpec(
        config="Qwen3VL",
        template=_chatml(_VISION),
        image_processor=_qwen_image_processor(8),
        vision={
            **_VISUAL,
            "hidden_size": 32,
            "out_hidden_size": _WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        text={**_TEXT, "head_dim": 16, "rope_parameters": {**_ROPE, "mrope_interleaved": True}},
        **_QWEN,
    ),
    "internvl": _TinySpec(
        config="InternVL",
        controls=[*_IM, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
        template=_chatml("<IMG_CONTEXT>\\n"),
        image_processor=("got_ocr2", "GotOcr2ImageProcessorPil", {"size": _SQUARE, "min_patches": 1, "max_patches": 4}),
        processor={"image_seq_length": 4},
        options={"image_seq_length": 4},
        vision={**_TOWER, "image_size": [32, 32], "patch_size": [8, 8]},
        text={"model_type": "qwen2", **_TEXT},
        named={
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        ids={"image_token_id": "<IMG_CONTEXT>"},
    ),
    "gemma3": _TinySpec(
        config="Gemma3",
        controls=[
            *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
            *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        ],
        template=(
            "{{ bos_token }}{% set system = messages[0]['role'] == 'system' %}"
            "{% set first = messages[0]['content'][0]['text'] + '\n\n' if system else '' %}"
            "{% for message in messages if message['role'] != 'system' %}<start_of_turn>"
            "{{ 'model' if message['role'] == 'assistant' else 'user' }}\n{{ first if loop.first else '' }}"
            + _parts("<start_of_image>")
            + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
        image_processor=("gemma3", "Gemma3ImageProcessorPil", {"size": _SQUARE}),
        processor={"image_seq_length": 4},
        options={"mm_tokens_per_image": 4},
        vision={"model_type": "siglip_vision_model", **_TOWER, "vision_use_head": False},
        text={**_TEXT, "model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64},
        named={
            **_GEMMA_NAMED,
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        ids={
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "image_token_index": "<image_soft_token>",
        },
    ),
    "paligemma": _TinySpec(
        config="PaliGemma",
        controls=["<pad>", "<eos>", "<bos>", "<unk>", "<image>"],
        template=None,
        image_processor=("siglip", "SiglipImageProcessorPil", {"size": _SQUARE, "image_seq_length": 16}),
        options={"projection_dim": _WIDTH},
        vision={
            "model_type": "siglip_vision_model",
            **_TOWER,
            "vision_use_head": False,
            "projection_dim": _WIDTH,
        },
        text={"model_type": "gemma", **_TEXT, "head_dim": 16},
        named={**_GEMMA_NAMED, "image_token": "<image>"},
        ids={"image_token_index": "<image>"},
    ),
    "mistral3": _TinySpec(
        config="Mistral3",
        image_processor=("pixtral", "PixtralImageProcessorPil", {"size": {"longest_edge": 64}, "patch_size": 8}),
        processor={"patch_size": 8, "spatial_merge_size": 2},
        options={"spatial_merge_size": 2, "vision_feature_layer": -1},
        vision={"model_type": "pixtral", **_TOWER, "image_size": 64, "head_dim": 16},
        text={"model_type": "mistral", **_TEXT, "head_dim": 16},
        **_MISTRAL,
    ),
    "pixtral": _TinySpec(
        config="Llava",
        image_processor=("pixtral", "PixtralImageProcessorPil", {"size": {"longest_edge": 64}, "patch_size": 8}),
        processor={"patch_size": 8},
        options={"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
        vision={"model_type": "pixtral", **_TOWER, "image_size": 64, "head_dim": 16},
        text={"model_type": "mistral", **_TEXT, "head_dim": 16},
        **_MISTRAL,
    ),
}


def build(name: str, directory: Path, texts: Iterable[str], vocab_size: int = 600, seed: int = 0) -> None:
    """Write a checkpoint of a model family with random fp32 weights.

    Args:
        name: the family, see `convkit.train.models.hf.families.FAMILIES`.
        directory: the output directory, created if needed.
        texts: the texts that the tokenizer is trained on.
        vocab_size: the vocabulary size without control tokens.
        seed: the random seed; the same seed and texts give the same bytes.
    """
    spec = _FAMILIES[name]
    tokenizer = train_byte_level_bpe(texts, vocab_size, spec.controls, spec.template, spec.adds_bos, **spec.named)
    ids = tokenizer.get_vocab()
    special = {f"{kind}_token_id": ids[spec.named[f"{kind}_token"]] for kind in ("eos", "pad")}
    special["bos_token_id"] = ids.get(spec.named.get("bos_token"))
    config = getattr(transformers, f"{spec.config}Config")(
        vision_config=spec.vision,
        text_config={**spec.text, "vocab_size": len(ids), **special},
        tie_word_embeddings=False,
        **{key: ids[token] for key, token in spec.ids.items()},
        **spec.options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{spec.config}ForConditionalGeneration")(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    module, cls, options = spec.image_processor
    images = import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    getattr(images, cls)(**options).save_pretrained(directory)
    (directory / "processor_config.json").write_text(json.dumps(spec.processor, indent=2) + "\n")


BUILDERS: dict[str, Callable[..., None]] = {name: partial(build, name) for name in _FAMILIES}

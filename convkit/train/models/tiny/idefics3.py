"""Tiny checkpoints of Idefics3 and SmolVLM."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from convkit.train.models.tiny.tokenizer import train_byte_level_bpe

_TAGS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
CONTROLS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"),
    *("<global-img>", *_TAGS),
]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Idefics3Size:
    """The sizes of a model and its images."""

    image_size: int = 64
    """The side of a tile in pixels."""
    longest_edge: int = 64
    """The maximum image side in pixels; if it exceeds `image_size`, larger images are cut into tiles."""
    patch_size: int = 8
    scale_factor: int = 2
    """The side, in patches, of the square that becomes one token."""
    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    vision_hidden_size: int = 64
    vision_layers: int = 2
    vocab_size: int = 600
    """The vocabulary size without control tokens."""
    initializer_range: float = 0.02

    @property
    def image_tokens(self) -> int:
        """The number of tokens per tile."""
        return (self.image_size // self.patch_size // self.scale_factor) ** 2


_SMALL = Idefics3Size()


def smolvlm(directory: Path, texts: Iterable[str], size: Idefics3Size = _SMALL, seed: int = 0) -> None:
    """Write a SmolVLM checkpoint with random fp32 weights.

    Args:
        directory: the output directory, created if needed.
        texts: the texts that the tokenizer is trained on.
        size: the sizes of the model and its images.
        seed: the random seed; the same seed and texts give the same bytes.
    """
    _write("SmolVLM", directory, texts, size, seed)


def idefics3(directory: Path, texts: Iterable[str], size: Idefics3Size = _SMALL, seed: int = 0) -> None:
    """Write an Idefics3 checkpoint; see `smolvlm`."""
    _write("Idefics3", directory, texts, size, seed)


def vision_config(size: Idefics3Size) -> dict[str, Any]:
    """Return the vision tower's configuration for transformers."""
    return {
        "hidden_size": size.vision_hidden_size,
        "intermediate_size": 4 * size.vision_hidden_size,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.heads,
        "image_size": size.image_size,
        "patch_size": size.patch_size,
        "initializer_range": size.initializer_range,
    }


def save_processor(name: str, directory: Path, tokenizer: PreTrainedTokenizerFast, size: Idefics3Size) -> None:
    """Write the tokenizer and image processor of `name`, which is Idefics3 or SmolVLM."""
    tokenizer.save_pretrained(directory)
    module = import_module(f"transformers.models.{name.lower()}.image_processing_pil_{name.lower()}")
    getattr(module, f"{name}ImageProcessorPil")(
        size={"longest_edge": size.longest_edge},
        max_image_size={"longest_edge": size.image_size},
        do_image_splitting=size.longest_edge > size.image_size,
    ).save_pretrained(directory)
    processor = {"processor_class": f"{name}Processor", "image_seq_len": size.image_tokens}
    (directory / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _write(name: str, directory: Path, texts: Iterable[str], size: Idefics3Size, seed: int) -> None:
    tokenizer = train_byte_level_bpe(
        texts,
        size.vocab_size,
        CONTROLS,
        TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
    )
    ids = tokenizer.get_vocab()
    special = {
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<end_of_utterance>"],
        "pad_token_id": ids["<|im_end|>"],
    }
    config = getattr(transformers, f"{name}Config")(
        image_token_id=ids["<image>"],
        scale_factor=size.scale_factor,
        vision_config=vision_config(size),
        text_config={
            "model_type": "llama",
            "vocab_size": len(ids),
            "hidden_size": size.hidden_size,
            "intermediate_size": 4 * size.hidden_size,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "max_position_embeddings": 8192,
            "initializer_range": size.initializer_range,
            **special,
        },
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    model.save_pretrained(directory)
    save_processor(name, directory, tokenizer, size)

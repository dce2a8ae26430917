"""A SmolVLM to start from: a trained language model with a fresh vision tower, or a tiny one that knows nothing yet."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    AutoConfig,
    AutoTokenizer,
    LlamaForCausalLM,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from convkit.dataset import Dataset
from convkit.errors import ConvkitError, MissingExtra
from convkit.train.models import model_family, save, tiny
from convkit.train.models.tiny.idefics3 import CONTROLS, TEMPLATE, ModelSize, save_processor, vision_config

VISION_PRESETS = {
    "tiny": ModelSize(
        image_size=64,
        longest_edge=64,
        patch_size=16,
        vision_hidden_size=128,
        vision_layers=2,
        hidden_size=128,
        layers=2,
        initializer_range=0.06,
    ),
    "small": ModelSize(
        image_size=224,
        longest_edge=224,
        patch_size=16,
        vision_hidden_size=384,
        vision_layers=6,
        heads=6,
        hidden_size=384,
    ),
    "base": ModelSize(
        image_size=512,
        longest_edge=512,
        patch_size=16,
        scale_factor=4,
        vision_hidden_size=768,
        vision_layers=12,
        heads=12,
        hidden_size=768,
    ),
}
"""By the names of --vision; the size of a language model in them is that of one made from scratch."""


def from_scratch(data_dir: Path, target: Path, vision: str, seed: int) -> str:
    """Write a model with random weights whose tokenizer knows the words of a data set's first split.

    Returns:
        What was made, in words.

    Raises:
        ConvkitError: `target` holds something, or `data_dir` is no dataset directory.
    """
    save.require_empty(target, "--output_dir")
    dataset = Dataset.open(data_dir)
    split = next(iter(dataset.manifest.splits))
    texts = {
        text
        for _, row in dataset.rows(split)
        for turn in row.conversations
        for text in (turn.user, turn.assistant)
        if text
    }
    with save.atomic_directory(target) as folder:
        tiny.smolvlm(folder, sorted(texts), VISION_PRESETS[vision], seed)
    return f"a SmolVLM with random weights, for the words of {split}{_to_validate(target, data_dir)}"


def from_language_model(source: Path, target: Path, vision: str, seed: int) -> str:
    """Write a language model with a fresh vision tower; what it makes of text alone is what it made of it before.

    Args:
        source: a Hugging Face folder or a .gguf file of a model of Llama's kind; data, none of its code is run.

    Returns:
        What was made, in words.

    Raises:
        ConvkitError: `target` holds something, or `source` is no such model.
    """
    save.require_empty(target, "--output_dir")
    language, tokenizer = _language(source)
    ends = tokenizer.eos_token_id
    _add_tokens(tokenizer)
    model = _with_tower(language, tokenizer, ends, VISION_PRESETS[vision], seed)
    with save.atomic_directory(target) as folder:
        model.save_pretrained(folder)
        save_processor("SmolVLM", folder, tokenizer, VISION_PRESETS[vision])
    return f"{source} with a fresh vision tower, {model.num_parameters():,} parameters{_to_validate(target)}"


def _language(source: Path) -> tuple[Any, Any]:
    """Model and tokenizer, from this disk alone."""
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    folder = source
    if source.suffix == ".gguf":
        folder, where["gguf_file"] = source.parent, source.name
        _require_gguf()
    if not source.exists():
        raise ConvkitError(f"{source} is not there. Name a folder with config.json and safetensors, or a .gguf file.")
    try:
        config = AutoConfig.from_pretrained(folder, **where)
        kind = config.model_type
        if kind == "llama":
            tokenizer = AutoTokenizer.from_pretrained(folder, **where)
            where.pop("trust_remote_code")  # a class of transformers' own has no use for it
            safe = {} if "gguf_file" in where else {"use_safetensors": True}
            return LlamaForCausalLM.from_pretrained(
                folder, dtype=config.dtype or torch.float32, **where, **safe
            ), tokenizer
    except Exception as error:  # readers of model files raise whatever their parts do
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise ConvkitError(
            f"{source} cannot be read as a language model: {why}. Name a folder with config.json, tokenizer.json and "
            "safetensors, or a .gguf file."
        ) from error
    raise ConvkitError(f"{source} is a model of the kind {kind!r}; only those of Llama's kind can be joined.")


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("gguf", "gguf", "Reading a .gguf file") from None


def _add_tokens(tokenizer: Any) -> None:
    """What stands for images and for the end of an utterance, behind the tokens that are there."""
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": CONTROLS[1]})
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=True) for name in CONTROLS[3:]], special_tokens=True
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token or tokenizer.bos_token
    tokenizer.eos_token = "<end_of_utterance>"
    tokenizer.chat_template = TEMPLATE.replace(CONTROLS[1], tokenizer.bos_token)


def _with_tower(language: Any, tokenizer: Any, ends: int | None, size: ModelSize, seed: int) -> Any:
    names = ("<end_of_utterance>", tokenizer.bos_token, tokenizer.pad_token)
    end, bos, pad = map(tokenizer.convert_tokens_to_ids, names)
    special = {"eos_token_id": end, "bos_token_id": bos, "pad_token_id": pad}
    text = {key: value for key, value in language.config.to_dict().items() if key != "quantization_config"}
    rows = max(text["vocab_size"], len(tokenizer))
    # A head of its own, as SmolVLM's have: one that shares its weights could not take an adapter and be merged.
    config = SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=size.scale_factor,
        vision_config=vision_config(size),
        text_config={**text, **special, "vocab_size": rows, "tie_word_embeddings": False},
        tie_word_embeddings=False,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmolVLMForConditionalGeneration(config)
    weights = language.model.state_dict()
    weights["embed_tokens.weight"] = _grown(weights["embed_tokens.weight"], rows, end, ends)
    model.model.text_model.load_state_dict(weights)
    model.lm_head.load_state_dict({"weight": _grown(language.lm_head.weight.detach(), rows, end, ends)})
    model.generation_config.eos_token_id = end
    return model.to(language.dtype)


def _grown(weight: Tensor, rows: int, end: int, ends: int | None) -> Tensor:
    """(V, D) to (rows, D): new tokens are the mean of all, and the end of an utterance is what ended texts before."""
    grown = torch.cat([weight, weight.float().mean(0).to(weight.dtype).expand(rows - len(weight), -1)])
    if ends is not None and end >= len(weight):
        grown[end] = weight[ends]
    return grown


def _to_validate(target: Path, data_dir: Path | None = None) -> str:
    """The next command."""
    return f"; next: convkit validate {data_dir or 'DATA'} --model {model_family(target).profile}"

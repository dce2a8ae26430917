"""Create a SmolVLM to start training from: a trained language model with a new vision tower, or a new tiny model."""

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
from convkit.train.models.tiny.idefics3 import CONTROLS, TEMPLATE, Idefics3Size, save_processor, vision_config

VISION_PRESETS = {
    "tiny": Idefics3Size(
        image_size=64,
        longest_edge=64,
        patch_size=16,
        vision_hidden_size=128,
        vision_layers=2,
        hidden_size=128,
        layers=2,
        initializer_range=0.06,
    ),
    "small": Idefics3Size(
        image_size=224,
        longest_edge=224,
        patch_size=16,
        vision_hidden_size=384,
        vision_layers=6,
        heads=6,
        hidden_size=384,
    ),
    "base": Idefics3Size(
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
"""The model size for each value of --vision; language model sizes apply to `from_scratch` only."""


def from_scratch(data_dir: Path, target: Path, vision: str, seed: int) -> str:
    """Write a model with random weights whose tokenizer is trained on a dataset's first split.

    Returns:
        A description of the model, and the next command.

    Raises:
        ConvkitError: `target` is not empty, or `data_dir` is not a dataset directory.
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
    return f"a SmolVLM with random weights, tokenizer trained on split {split}{_next_command(target, data_dir)}"


def from_language_model(source: Path, target: Path, vision: str, seed: int) -> str:
    """Write a language model with a new vision tower; its logits for text without images stay the same.

    Args:
        source: a Hugging Face directory or .gguf file of a model with `model_type` llama; none of its code is run.
        target: an output directory that is empty or does not exist.
        vision: a key of `VISION_PRESETS`.
        seed: the seed of the new weights.

    Returns:
        A description of the model, and the next command.

    Raises:
        ConvkitError: `target` is not empty, or `source` is not such a model.
    """
    save.require_empty(target, "--output_dir")
    language, tokenizer = _load_language_model(source)
    original_eos = tokenizer.eos_token_id
    _add_tokens(tokenizer)
    model = _with_tower(language, tokenizer, original_eos, VISION_PRESETS[vision], seed)
    with save.atomic_directory(target) as folder:
        model.save_pretrained(folder)
        save_processor("SmolVLM", folder, tokenizer, VISION_PRESETS[vision])
    return f"{source} with a new vision tower, {model.num_parameters():,} parameters{_next_command(target)}"


def _load_language_model(source: Path) -> tuple[Any, Any]:
    """Load model and tokenizer from local files only."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    folder = source
    if source.suffix == ".gguf":
        folder, options["gguf_file"] = source.parent, source.name
        _require_gguf()
    if not source.exists():
        raise ConvkitError(
            f"{source} does not exist. Pass a directory with config.json and safetensors, or a .gguf file."
        )
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        model_type = config.model_type
        if model_type == "llama":
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            options.pop("trust_remote_code")  # LlamaForCausalLM does not accept it
            safe = {} if "gguf_file" in options else {"use_safetensors": True}
            return LlamaForCausalLM.from_pretrained(
                folder, dtype=config.dtype or torch.float32, **options, **safe
            ), tokenizer
    except Exception as error:  # readers of model files raise errors of any type
        message = " ".join(str(error).split())[:300].rstrip(".")
        raise ConvkitError(
            f"{source} cannot be read as a language model: {message}. Pass a directory with config.json, "
            "tokenizer.json and safetensors, or a .gguf file."
        ) from error
    raise ConvkitError(f"{source} has model_type {model_type!r}. Pass a model with model_type 'llama'.")


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("gguf", "gguf", "Reading a .gguf file") from None


def _add_tokens(tokenizer: Any) -> None:
    """Append the tokens for images and for the end of an utterance to the vocabulary."""
    if tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": CONTROLS[1]})
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=True) for name in CONTROLS[3:]], special_tokens=True
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token or tokenizer.bos_token
    tokenizer.eos_token = "<end_of_utterance>"
    tokenizer.chat_template = TEMPLATE.replace(CONTROLS[1], tokenizer.bos_token)


def _with_tower(language: Any, tokenizer: Any, original_eos: int | None, size: Idefics3Size, seed: int) -> Any:
    names = ("<end_of_utterance>", tokenizer.bos_token, tokenizer.pad_token)
    end, bos, pad = map(tokenizer.convert_tokens_to_ids, names)
    special = {"eos_token_id": end, "bos_token_id": bos, "pad_token_id": pad}
    text = {key: value for key, value in language.config.to_dict().items() if key != "quantization_config"}
    rows = max(text["vocab_size"], len(tokenizer))
    # Untied embeddings, as in SmolVLM: an adapter of a tied head could not be merged.
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
    weights["embed_tokens.weight"] = _resize_embedding(weights["embed_tokens.weight"], rows, end, original_eos)
    model.model.text_model.load_state_dict(weights)
    model.lm_head.load_state_dict(
        {"weight": _resize_embedding(language.lm_head.weight.detach(), rows, end, original_eos)}
    )
    model.generation_config.eos_token_id = end
    return model.to(language.dtype)


def _resize_embedding(weight: Tensor, rows: int, end: int, original_eos: int | None) -> Tensor:
    """Resize (V, D) to (rows, D).

    New tokens get the mean embedding; the end of an utterance gets the embedding of the original EOS.
    """
    resized = torch.cat([weight, weight.float().mean(0).to(weight.dtype).expand(rows - len(weight), -1)])
    if original_eos is not None and end >= len(weight):
        resized[end] = weight[original_eos]
    return resized


def _next_command(target: Path, data_dir: Path | None = None) -> str:
    """Return the `convkit validate` command for the new model."""
    return f"\nnext: convkit validate {data_dir or 'DATA'} --model {model_family(target).profile}"

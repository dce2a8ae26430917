"""Tiny checkpoints of Phi-3-vision."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from convkit.train.models.phi3_v.configuration import LONG_FACTORS, SHORT_FACTORS, Phi3VConfig
from convkit.train.models.phi3_v.image_processing import Phi3VImageProcessor
from convkit.train.models.phi3_v.modeling import Phi3VForCausalLM
from convkit.train.models.phi3_v.processing import IMAGE_TOKEN, Phi3VProcessor

_SPACE = "\u2581"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_STRIPPING = ("<|assistant|>", IMAGE_TOKEN)
_CONTROLS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", IMAGE_TOKEN)
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def phi3_v(directory: Path, texts: Iterable[str], vocab_size: int = 600, seed: int = 0) -> None:
    """Write a Phi-3-vision checkpoint of two layers with random fp32 weights, in the official layout.

    Args:
        directory: the output directory, created if needed.
        texts: the texts that the tokenizer is trained on.
        vocab_size: the vocabulary size without control tokens; at least 300.
        seed: the random seed; the same seed and texts give the same bytes.
    """
    tokenizer = _llama_tokenizer(texts, vocab_size)
    ids = tokenizer.get_vocab()
    half = 8
    config = Phi3VConfig(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<s>"],
        eos_token_id=ids["</s>"],
        image_token_id=ids[IMAGE_TOKEN],
        rope_scaling={"short_factor": SHORT_FACTORS[::6][:half], "long_factor": LONG_FACTORS[::6][:half]},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 16,
            "hidden_act": "quick_gelu",
        },
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Phi3VForCausalLM(config)
    model.save_pretrained(directory)
    Phi3VProcessor(Phi3VImageProcessor(), tokenizer).save_pretrained(directory)


def _llama_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a Llama-style BPE tokenizer: a space symbol before every text, byte fallback for unknown characters."""
    basic = ["<unk>", "<s>", "</s>", *_BYTES]
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=basic, show_progress=False)
    )
    backend = _special_only(backend, basic[:3])
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens([AddedToken(name, rstrip=name in _STRIPPING, normalized=False) for name in _CONTROLS])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=_TEMPLATE,
    )


def _special_only(backend: Tokenizer, names: list[str]) -> Tokenizer:
    """Keep only `names` as control tokens; the byte tokens become normal vocabulary."""
    description = json.loads(backend.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] in names]
    return Tokenizer.from_str(json.dumps(description))

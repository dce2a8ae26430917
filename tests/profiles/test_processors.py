"""Every family against the processor of transformers, on images of random sizes.

The processors are built from their configuration; the tokenizer is a byte-level one without merges, to which the
control tokens of the family are added. Images are blank: only their size has a bearing on the number of tokens.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convkit.profiles import Profile, ShapeRefused, Size, get_profile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers", reason="needs the extra train: pip install 'convkit-vlm[train]'")
# They warn at import about what is absent and about themselves; the suite turns warnings into errors.
pytestmark = pytest.mark.filterwarnings("ignore")

TAGS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
QWEN = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
IDEFICS = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<video>"]


def tokenizer(tokens: list[str], **named: str) -> Any:
    """A byte-level tokenizer that knows line ends as SmolVLM's does, and control tokens."""
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


def qwen(profile: Profile, cls: str) -> tuple[Any, str]:
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    assert hasattr(profile, "patch_size")
    images = Qwen2VLImageProcessorPil(
        patch_size=profile.patch_size,
        merge_size=profile.merge_size,  # type: ignore[attr-defined]
        size={"shortest_edge": profile.min_pixels, "longest_edge": profile.max_pixels},  # type: ignore[attr-defined]
    )
    make = getattr(transformers, cls)
    return make(images, tokenizer(QWEN), Qwen2VLVideoProcessor()), "<|vision_start|><|image_pad|><|vision_end|>"


def build(spec: str) -> Any:
    raise NotImplementedError(spec)

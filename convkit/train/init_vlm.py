"""A SmolVLM to start from: a trained language model with a fresh vision tower, or a tiny one that knows nothing yet."""

import json
from pathlib import Path

from convkit import layout
from convkit.dataset import Dataset
from convkit.train import checkpoint
from convkit.train.models import adapter as adapter_of
from convkit.train.models import tiny
from convkit.train.models.tiny.idefics3 import Geometry

VISION = {
    "tiny": Geometry(
        image_size=64,
        longest_edge=64,
        patch_size=16,
        vision_hidden_size=128,
        vision_layers=2,
        hidden_size=128,
        layers=2,
        initializer_range=0.06,
    ),
    "small": Geometry(
        image_size=224, longest_edge=224, patch_size=16, vision_hidden_size=384, vision_layers=6, heads=6, hidden_size=384
    ),
    "base": Geometry(
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
    checkpoint.require_new(target, "--output_dir")
    dataset = Dataset.open(data_dir)
    split = next(iter(dataset.manifest.splits))
    texts = {
        text
        for _, row in dataset.rows(split)
        for turn in row.conversations
        for text in (turn.user, turn.assistant)
        if text
    }
    with checkpoint.whole(target) as folder:
        tiny.smolvlm(folder, sorted(texts), VISION[vision], seed)
    return f"a SmolVLM with random weights, for the words of {split}{_to_validate(target, data_dir)}"


def _to_validate(target: Path, data_dir: Path | None = None) -> str:
    """The next command."""
    return f"; next: convkit validate {data_dir or 'DATA'} --model {adapter_of(target).profile}"

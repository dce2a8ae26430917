"""The interface between the trainer and a model family."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from convkit.schema import Row
from convkit.train.models.collate import Sample


class RowLength(NamedTuple):
    """The number of tokens in a row."""

    tokens: int
    supervised: int
    """The number of tokens that contribute to the loss: labelled ones, except the row's first token."""


class ModelFamily(Protocol):
    """A model family, created from a checkpoint directory without loading the weights."""

    vision_modules: tuple[str, ...]
    """Parameter name prefixes of the vision tower and projector, frozen by `--freeze_vision_model`."""
    lora_targets: tuple[str, ...]
    """The language model's linear layers that LoRA adapts, as module name suffixes."""
    vision_lora_targets: tuple[str, ...]
    """The linear layers in `vision_modules` that LoRA adapts unless they are frozen, as module name suffixes."""
    stop_token_ids: tuple[int, ...]
    """The token ids that end generation."""
    tokenizer: Any
    """A fast tokenizer of transformers."""
    image_token_ids: tuple[int, ...]
    """The token ids that stand for images, including row separators."""
    compiled_layers: tuple[str, ...]
    """The class names of layers that run faster when compiled, with unchanged results."""
    supports_packing: bool
    """Samples can be packed into one sequence; otherwise they are padded."""

    @property
    def profile(self) -> str:
        """The token profile with its options, as for `convkit validate --model`; the receipt must match it."""

    def load(self, dtype: torch.dtype, attention: str) -> Any:
        """Load the model with its weights on the CPU."""

    def encode(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode a row for training.

        Args:
            row: a row with all its answers.
            images: the directory that the row's image paths are relative to.
            max_length: the maximum number of tokens.

        Raises:
            RowError: the row cannot become model input.
        """

    def length(self, row: Row, images: Path) -> RowLength:
        """Return the number of tokens that `encode` would make, reading image headers only.

        Raises:
            RowError: the row cannot become model input.
        """

    def encode_prompt(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """Encode the prompt of a row's last answer, for generation; see `encode`."""

    def collate(self, samples: Sequence[Sample], packed: bool) -> dict[str, Any]:
        """Collate samples into the model's inputs; padding is on the right for training, on the left for prompts."""

    def tiles(self, sample: Sample) -> list[Tensor]:
        """Return the image tiles that the model receives, (3, H, W) uint8, in input order."""

    def save_processor(self, directory: Path) -> None:
        """Write the checkpoint files other than weights and config.json, with the options used in training."""

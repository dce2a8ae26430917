"""What the trainer must know of a model family, and nothing more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from convkit.schema import Row
from convkit.train.models.collate import Sample


class RowLength(NamedTuple):
    """A row in tokens."""

    tokens: int
    supervised: int
    """Those that a loss is taken of: what is learnt, but for the first token of the row."""


class ModelFamily(Protocol):
    """One model family; made from a checkpoint's directory, without loading its weights."""

    vision_modules: tuple[str, ...]
    """Names of the modules that see, as prefixes of parameter names: what is frozen to leave the vision tower be."""
    lora_targets: tuple[str, ...]
    """The linear layers that LoRA adapts, as the ends of module names."""
    vision_lora_targets: tuple[str, ...]
    """Likewise, those in the modules that see: adapted unless these are frozen."""
    stop_token_ids: tuple[int, ...]
    """Where generation ends."""
    tokenizer: Any
    """Of transformers, a fast one."""
    image_token_ids: tuple[int, ...]
    """What stands for images, separators of their rows included."""
    compiled_layers: tuple[str, ...]
    """Classes of layers that are known to gain by being compiled, and to compute the same."""
    supports_packing: bool
    """Whether samples may be laid end to end; if not, they are padded."""

    @property
    def profile(self) -> str:
        """The model as `convkit validate --model` calls it, with its options: what a receipt must be for."""

    def load(self, dtype: torch.dtype, attention: str) -> Any:
        """The model with its weights, on the CPU."""

    def encode(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """A row for training, its images read from `images`; raises `RowError`."""

    def length(self, row: Row, images: Path) -> RowLength:
        """What `sample` would have in tokens, from the headers of the images alone; raises `RowError`."""

    def encode_prompt(self, row: Row, images: Path, max_length: int | None = None) -> Sample:
        """What stands before a row's last answer."""

    def collate(self, samples: Sequence[Sample], packed: bool) -> dict[str, Any]:
        """A batch as the model's forward takes it; padded, rows are filled up on the right, prompts on the left."""

    def tiles(self, sample: Sample) -> list[Tensor]:
        """What the model sees of a sample's images, as pictures: (3, H, W) uint8, in the order of the model's input."""

    def save_processor(self, directory: Path) -> None:
        """Write what a checkpoint needs beside its weights, with the options that were trained with."""

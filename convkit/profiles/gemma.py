"""Gemma 3 and PaliGemma: every image is resized to a square, and has a fixed number of tokens.

Source: `Gemma3Processor` and `PaliGemmaProcessor` of transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile


@dataclass(frozen=True, kw_only=True)
class Gemma3(TokenProfile):
    """Gemma 3: an image between start and end tokens and blank lines; without pan and scan, as by default."""

    checkpoint = "google/gemma-3-4b-it"
    template = ChatTemplate(
        system=("", "\n\n"),
        system_in_user=True,
        user=("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "<end_of_turn>\n"),
        image_start="\n\n",
        image_end="\n\n",
        marked_image_end="\n\n",
        bos=1,
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<(?:pad|eos|bos|unk|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token)>"
    )

    image_seq_length: int = 256

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of the image and its two wrapper tokens."""
        return [self.image_seq_length + 2]


@dataclass(frozen=True, kw_only=True)
class PaliGemma(TokenProfile):
    """PaliGemma: all images, the prompt and a newline, then the answer."""

    checkpoint = "google/paligemma-3b-mix-224"
    template = ChatTemplate(system=("", "\n"), user=("", "\n"), assistant=("", "<eos>"), bos=1)
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(r"<(?:pad|eos|bos|unk|image|loc\d{4}|seg\d{3})>")

    image_seq_length: int = 256

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of the image."""
        return [self.image_seq_length]

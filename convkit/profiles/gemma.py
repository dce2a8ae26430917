"""Gemma 3 and PaliGemma: every image is stretched to one square, and has a fixed number of tokens.

Source: `Gemma3Processor` and `PaliGemmaProcessor` of transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import Part, Profile, Size, Template


@dataclass(frozen=True, kw_only=True)
class Gemma3(Profile):
    """One view between a start and an end token, with empty lines around it; pan and scan is off, as by default."""

    source = "google/gemma-3-4b-it"
    template = Template(
        system=("", "\n\n"),
        system_within=True,
        user=("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "<end_of_turn>\n"),
        image_start="\n\n",
        image_end="\n\n",
        marked_image_end="\n\n",
        bos=1,
    )
    control: ClassVar[re.Pattern[str]] = re.compile(
        r"<(?:pad|eos|bos|unk|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token)>"
    )

    image_seq_length: int = 256

    def image(self, size: Size, images: int = 1) -> Sequence[Part]:
        """The view and its two wrappers."""
        return [self.image_seq_length + 2]


@dataclass(frozen=True, kw_only=True)
class PaliGemma(Profile):
    """All images, the prompt and a line end; then the answer."""

    source = "google/paligemma-3b-mix-224"
    template = Template(system=("", "\n"), user=("", "\n"), assistant=("", "<eos>"), bos=1)
    control: ClassVar[re.Pattern[str]] = re.compile(r"<(?:pad|eos|bos|unk|image|loc\d{4}|seg\d{3})>")

    image_seq_length: int = 256

    def image(self, size: Size, images: int = 1) -> Sequence[Part]:
        """The view."""
        return [self.image_seq_length]

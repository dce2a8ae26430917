"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images keep roughly their size, in a grid of merged patches.

Source: `Qwen2VLImageProcessor` of transformers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile, UnsupportedShape

MAX_RATIO = 200


@dataclass(frozen=True, kw_only=True)
class Qwen2VL(TokenProfile):
    """Qwen2-VL: a token per cell with sides of `patch_size * merge_size` pixels, and two wrapper tokens."""

    checkpoint = "Qwen/Qwen2-VL-7B-Instruct"
    template = ChatTemplate(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        default_system="You are a helpful assistant.",
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:endoftext|im_start|im_end|object_ref_start|object_ref_end|box_start|box_end|quad_start|quad_end"
        r"|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
    )

    patch_size: int = 14
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 14 * 14 * 4 * 16384

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of the resized image and the two wrappers."""
        cell = self.patch_size * self.merge_size
        width, height = self.resized(size)
        return [(width // cell) * (height // cell) + 2]

    def resized(self, size: ImageSize) -> ImageSize:
        """Return the size in pixels after scaling to whole cells, between `min_pixels` and `max_pixels`."""
        width, height = size
        if max(size) / min(size) > MAX_RATIO:
            raise UnsupportedShape(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
        cell = self.patch_size * self.merge_size
        whole = ImageSize(round(width / cell) * cell, round(height / cell) * cell)
        pixels = whole.width * whole.height
        # Square root and division in the processor's order: the last bit matters at the edge of a cell.
        if pixels > self.max_pixels:
            beta = math.sqrt(height * width / self.max_pixels)
            return ImageSize(*(max(cell, math.floor(side / beta / cell) * cell) for side in size))
        if pixels < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (height * width))
            return ImageSize(*(math.ceil(side * beta / cell) * cell for side in size))
        return whole


@dataclass(frozen=True, kw_only=True)
class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: like Qwen2-VL with more control tokens."""

    checkpoint = "Qwen/Qwen2.5-VL-7B-Instruct"
    # The tags of tool calls and thoughts are tokens too, but answers may contain them.
    control_tokens = re.compile(
        rf"{Qwen2VL.control_tokens.pattern}|<\|(?:fim_prefix|fim_middle|fim_suffix|fim_pad|repo_name|file_sep)\|>"
    )


@dataclass(frozen=True, kw_only=True)
class Qwen3VL(Qwen25VL):
    """Qwen3-VL: larger patches, other limits, and no default system prompt."""

    checkpoint = "Qwen/Qwen3-VL-8B-Instruct"
    template = ChatTemplate(
        system=Qwen2VL.template.system, user=Qwen2VL.template.user, assistant=Qwen2VL.template.assistant
    )

    patch_size: int = 16
    min_pixels: int = 256 * 256
    max_pixels: int = 4096 * 4096

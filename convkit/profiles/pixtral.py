"""Pixtral and Mistral 3: an image keeps its size up to a limit, rounded up to a grid of cells.

Source: `PixtralProcessor` and `PixtralImageProcessor` of transformers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile, UnsupportedShape


@dataclass(frozen=True, kw_only=True)
class Pixtral(TokenProfile):
    """Pixtral: a token per cell with sides of `patch_size * spatial_merge_size` pixels, and one per row end."""

    checkpoint = "mistral-community/pixtral-12b"
    template = ChatTemplate(
        system=("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), user=("[INST]", "[/INST]"), assistant=("", "</s>"), bos=1
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"</?s>|<unk>|<pad>|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"
        r"|\[(?:TOOL_CALLS|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX)\]"
    )

    patch_size: int = 16
    spatial_merge_size: int = 1
    longest_edge: int = 1024

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of cells and row ends."""
        columns, rows = self._cells(size)
        return [rows * (columns + 1)]

    def _cells(self, size: ImageSize) -> tuple[int, int]:
        """Return the columns and rows of cells, rounded up."""
        ratio = max(size) / self.longest_edge
        sides = [math.floor(side / ratio) if ratio > 1 else side for side in size]
        if not all(sides):
            raise UnsupportedShape(f"{size.width} x {size.height} pixels are scaled to a height or width of 0")
        columns, rows = (-(-side // (self.patch_size * self.spatial_merge_size)) for side in sides)
        return columns, rows


@dataclass(frozen=True, kw_only=True)
class Mistral3(Pixtral):
    """Mistral 3: like Pixtral with four patches per token; the model fails on images of a single token."""

    checkpoint = "mistralai/Mistral-Small-3.1-24B-Instruct-2503"

    patch_size: int = 14
    spatial_merge_size: int = 2
    longest_edge: int = 1540

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of cells and row ends."""
        if self._cells(size) == (1, 1):
            raise UnsupportedShape(
                f"{size.width} x {size.height} pixels are too few: the model fails on a single token"
            )
        return super().image_parts(size, images)

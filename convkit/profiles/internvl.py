"""InternVL: an image is resized to the grid of tiles with the closest aspect ratio.

Source: `InternVLProcessor` and `GotOcr2ImageProcessor` of transformers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile


@dataclass(frozen=True, kw_only=True)
class InternVL(TokenProfile):
    """InternVL: `min_patches` to `max_patches` tiles with sides of `size` pixels, and a thumbnail if several."""

    checkpoint = "OpenGVLab/InternVL3-8B-hf"
    template = ChatTemplate(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
        image_end="\n",
        marked_image_end="\n",
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:endoftext|im_start|im_end)\|>|</?(?:img|quad|ref|box)>|<IMG_CONTEXT>|<video>"
    )

    size: int = 448
    min_patches: int = 1
    max_patches: int = 12
    image_seq_length: int = 256

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of all tiles with a start and an end token."""
        columns, rows = self._grid(size) if self.max_patches > 1 else (1, 1)
        tiles = columns * rows
        return [(tiles + (tiles > 1)) * self.image_seq_length + 2]

    def _grid(self, size: ImageSize) -> tuple[int, int]:
        ratio = size.width / size.height
        best, nearest = (1, 1), math.inf
        for columns, rows in _grids(self.min_patches, self.max_patches):
            distance = abs(ratio - columns / rows)
            # For equal ratios, use the larger grid if the image has more than half its pixels.
            large = size.width * size.height > 0.5 * self.size * self.size * columns * rows
            if distance < nearest or (distance == nearest and large):
                best, nearest = (columns, rows), distance
        return best


@lru_cache
def _grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    grids = (
        (columns, rows)
        for columns in range(1, most + 1)
        for rows in range(1, most // columns + 1)
        if columns * rows >= least
    )
    return tuple(sorted(grids, key=math.prod))

"""Phi-3-vision and Phi-3.5-vision: an image becomes a grid of tiles (HD transform), and a thumbnail.

Source: the processor in the checkpoint's repository, as described in docs/profiles.md.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile, UnsupportedShape

TILE = 336
_TILE_ROWS = 12
"""Rows of tokens per tile, after merging 2 x 2 features."""


class HdSize(NamedTuple):
    """The sizes of an image after the HD transform, as (height, width) in pixels."""

    resized: tuple[int, int]
    """Size of the resized image."""
    padded: tuple[int, int]
    """Size of all tiles, multiples of 336."""

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the image."""
        return hd_tokens(*self.padded)


def hd_size(width: int, height: int, num_crops: int) -> HdSize:
    """Fit an image to at most `num_crops` tiles, with as many as possible on its longer side; may upscale.

    Raises:
        UnsupportedShape: the shorter side would be scaled to 0 pixels.
    """
    long, short = max(width, height), min(width, height)
    ratio = long / short
    across = 1
    while (across + 1) * math.ceil((across + 1) / ratio) <= num_crops:
        across += 1
    long, short = across * TILE, int(across * TILE / ratio)
    if not short:
        raise UnsupportedShape(f"{width} x {height} pixels are scaled to a height or width of 0")
    padded = -(-short // TILE) * TILE
    return HdSize((short, long), (padded, long)) if width >= height else HdSize((long, short), (long, padded))


def hd_tokens(height: int, width: int, tile_tokens: int = 144) -> int:
    """Return the tokens of tiles and thumbnail, with a separator per row of tokens and one between both.

    Args:
        height: of all tiles, in pixels.
        width: of all tiles, in pixels.
        tile_tokens: tokens per tile.
    """
    rows, columns = height // TILE, width // TILE
    return (rows * columns + 1) * tile_tokens + 1 + (rows + 1) * _TILE_ROWS


@dataclass(frozen=True, kw_only=True)
class Phi35Vision(TokenProfile):
    """Phi-3.5-vision: up to `num_crops` tiles of 336 x 336 pixels."""

    checkpoint = "microsoft/Phi-3.5-vision-instruct"
    template = ChatTemplate(
        system=("<|system|>\n", "<|end|>\n"),
        user=("<|user|>\n", "<|end|>\n"),
        assistant=("<|assistant|>\n", "<|end|>\n"),
        images_end="\n",
        end="<|endoftext|>",
        bos=1,
        bos_each_piece=True,
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:endoftext|assistant|system|end|user|placeholder\d+|continue|step|function_\w+|calc|code|/code|summary"
        r"|resource|raw|context|image(?:_\d+)?)\|>|</?s>|<unk>"
    )

    num_crops: int = 4
    num_img_tokens: int = 144

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of tiles, thumbnail and separators."""
        return [hd_tokens(*hd_size(*size, self.num_crops).padded, self.num_img_tokens)]

    def padded(self, size: ImageSize) -> ImageSize:
        """Return the size in pixels after scaling and padding, multiples of 336."""
        height, width = hd_size(*size, self.num_crops).padded
        return ImageSize(width, height)


@dataclass(frozen=True, kw_only=True)
class Phi3Vision(Phi35Vision):
    """Phi-3-vision: the same with more tiles."""

    checkpoint = "microsoft/Phi-3-vision-128k-instruct"

    num_crops: int = 16

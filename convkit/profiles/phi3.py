"""Phi-3-vision and Phi-3.5-vision: an image becomes a grid of tiles, and a view of the whole.

Source: the processor in the checkpoint's repository, as described in docs/profiles.md.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import Part, Profile, ShapeRefused, Size, Template

TILE = 336
_TILE_ROWS = 12
"""Rows of tokens of a tile, after 2 x 2 features were merged."""


@dataclass(frozen=True, kw_only=True)
class Phi35Vision(Profile):
    """Up to `num_crops` tiles of 336 x 336 pixels."""

    source = "microsoft/Phi-3.5-vision-instruct"
    template = Template(
        system=("<|system|>\n", "<|end|>\n"),
        user=("<|user|>\n", "<|end|>\n"),
        assistant=("<|assistant|>\n", "<|end|>\n"),
        images_end="\n",
        end="<|endoftext|>",
        bos=1,
        bos_each_piece=True,
    )
    control: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:endoftext|assistant|system|end|user|placeholder\d+|continue|step|function_\w+|calc|code|/code|summary"
        r"|resource|raw|context|image(?:_\d+)?)\|>|</?s>|<unk>"
    )

    num_crops: int = 4
    num_img_tokens: int = 144

    def image(self, size: Size, images: int = 1) -> Sequence[Part]:
        """Tiles, view of the whole, a separator a row of tokens for both, and one between them."""
        width, height = self.padded(size)
        rows, columns = height // TILE, width // TILE
        return [(rows * columns + 1) * self.num_img_tokens + 1 + (rows + 1) * _TILE_ROWS]

    def padded(self, size: Size) -> Size:
        """The size in pixels after scaling and padding, multiples of 336.

        The longer side is scaled to as many tiles as the limit allows, also where that enlarges the image.
        """
        long, short = max(size), min(size)
        ratio = long / short
        scale = 1
        while scale * math.ceil(scale / ratio) <= self.num_crops:
            scale += 1
        scale -= 1
        long, short = scale * TILE, int(scale * TILE / ratio)
        if not short:
            raise ShapeRefused(f"{size.width} x {size.height} pixels are scaled to a height or width of nothing")
        short = -(-short // TILE) * TILE
        return Size(long, short) if size.width >= size.height else Size(short, long)


@dataclass(frozen=True, kw_only=True)
class Phi3Vision(Phi35Vision):
    """The same with more tiles."""

    source = "microsoft/Phi-3-vision-128k-instruct"

    num_crops: int = 16

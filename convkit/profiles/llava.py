"""LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision: a fixed-size view, and in the later models unpadded tiles.

Source: `LlavaProcessor`, `LlavaNextProcessor` and `LlavaOnevisionProcessor` of transformers.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile, UnsupportedShape


@dataclass(frozen=True, kw_only=True)
class Llava15(TokenProfile):
    """LLaVA-1.5: every image is scaled and cropped to a square."""

    checkpoint = "llava-hf/llava-1.5-7b-hf"
    template = ChatTemplate(
        system=("", " "), user=("USER: ", " "), assistant=("ASSISTANT: ", " "), image_end="\n", bos=1
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(r"<image>|<pad>|</?s>|<unk>")

    crop_size: int = 336
    patch_size: int = 14

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the number of patches of the square."""
        return [self._view]

    @property
    def _view(self) -> int:
        return (self.crop_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class LlavaNext(Llava15):
    """LLaVA-NeXT: the view and the tiles of the best resolution, with a token at the end of each row."""

    checkpoint = "llava-hf/llava-v1.6-mistral-7b-hf"
    template = ChatTemplate(
        system=("", " "), user=("[INST] ", " [/INST]"), assistant=(" ", "</s>"), image_end="\n", bos=1
    )
    grid_pinpoints: ClassVar[tuple[tuple[int, int], ...]] = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    """Rows and columns of tiles, in the order of `image_grid_pinpoints`: the first of equally good ones is used."""

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the tokens of the view and of the tiles."""
        rows, columns = self._unpadded(size)
        return [self._view + self._tiles(rows, columns)]

    def _tiles(self, rows: int, columns: int) -> int:
        return rows * columns + rows

    def _unpadded(self, size: ImageSize) -> tuple[int, int]:
        """Return the rows and columns of patches that the image covers, without the padding of the tiles."""
        side = self.crop_size // self.patch_size
        grid_rows, grid_columns = best_grid(size, self.grid_pinpoints, self.crop_size)
        rows, columns = side * grid_rows, side * grid_columns
        # Rounded to seven digits, as in the processor, so that integers stay integers.
        if size.width / size.height > columns / rows:
            rows -= (rows - int(round(size.height * (columns / size.width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(size.width * (rows / size.height), 7))) // 2 * 2
        return rows, columns


def best_grid(size: ImageSize, grids: Iterable[tuple[int, int]], tile: int) -> tuple[int, int]:
    """Return the rows and columns of tiles that keep most pixels of the image, then waste least.

    Raises:
        UnsupportedShape: the image is scaled to nothing in every grid.
    """
    best, most, least = None, 0, math.inf
    for rows, columns in grids:
        width, height = columns * tile, rows * tile
        scale = min(width / size.width, height / size.height)
        kept = min(int(size.width * scale) * int(size.height * scale), size.width * size.height)
        waste = width * height - kept
        if kept > most or (kept == most and waste < least):
            best, most, least = (rows, columns), kept, waste
    if best is None or not most:
        raise UnsupportedShape(f"{size.width} x {size.height} pixels are scaled to a height or width of 0")
    return best


@dataclass(frozen=True, kw_only=True)
class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision: more tiles, scaled down above `anyres_max`; several images get only their view."""

    checkpoint = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    template = ChatTemplate(
        system=("<|im_start|>system \n", "<|im_end|>"),
        user=("<|im_start|>user ", "<|im_end|>"),
        assistant=("<|im_start|>assistant \n", "<|im_end|>"),
        last_assistant="<|im_start|>assistant\n",
        images_end="\n",
        text_first="\n",
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(r"<\|(?:endoftext|im_start|im_end)\|>|<image>|<video>")
    grid_pinpoints = tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7))

    crop_size: int = 384
    num_image_tokens: int = 729
    anyres_max: int = 9

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return view and tiles of a single image; each of several images has one view and an end token."""
        return super().image_parts(size) if images == 1 else [self._view + 1]

    @property
    def _view(self) -> int:
        return self.num_image_tokens

    def _tiles(self, rows: int, columns: int) -> int:
        ratio = math.sqrt(rows * columns / (self.anyres_max * self.num_image_tokens))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return rows * columns + rows

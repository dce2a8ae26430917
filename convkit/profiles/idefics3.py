"""Idefics3 and SmolVLM: an image becomes a grid of square tiles with position tags, and a thumbnail.

Source: `Idefics3ImageProcessor`, `Idefics3Processor` and their SmolVLM twins of transformers.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.errors import ConvkitError
from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile

MAX_SIDE = 4096
"""Largest side in pixels after scaling, for any options."""
MAX_GRID = 6
"""Most tiles per row or column for which the vocabulary has tags."""


@dataclass(frozen=True, kw_only=True)
class SmolVLM(TokenProfile):
    """SmolVLM: tiles with sides of `max_image_size` pixels and `image_seq_len` tokens; each tag is one token."""

    checkpoint = "HuggingFaceTB/SmolVLM-Instruct"
    template = ChatTemplate(
        system=("System: ", "<end_of_utterance>\n"),
        user=("User:", "<end_of_utterance>\n"),
        assistant=("Assistant: ", "<end_of_utterance>\n"),
        text_first=" ",
        bos=1,
    )
    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:im_start|im_end|endoftext|begin_of_text|end_of_text)\|>|<end_of_utterance>"
        r"|<fake_token_around_image>|<global-img>|<row_\d_col_\d>|<image>|<video>"
    )

    longest_edge: int = 1536
    max_image_size: int = 384
    image_seq_len: int = 81

    def __post_init__(self) -> None:
        if -(-min(self.longest_edge, MAX_SIDE) // self.max_image_size) > MAX_GRID:
            raise ConvkitError(
                f"longest_edge={self.longest_edge} with max_image_size={self.max_image_size} makes more than "
                f"{MAX_GRID} tiles per row, for which the model has no tags. Choose a smaller longest_edge."
            )

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return a frame token, a tag and the tokens of each tile, a newline per row, then the thumbnail."""
        return list(self._parts(*self.grid(size)))

    def _parts(self, rows: int, columns: int) -> Iterator[ImagePart]:
        for row in range(rows):
            for column in range(columns):
                yield from (1, self._tag(f"<row_{row + 1}_col_{column + 1}>"), self.image_seq_len)
            yield 1  # the newline; that of the last row forms one token with the blank line that follows
        yield from (1, self._tag("<global-img>"), self.image_seq_len, 1)

    def _tag(self, tag: str) -> ImagePart:
        return 1

    def grid(self, size: ImageSize) -> tuple[int, int]:
        """Return the rows and columns of tiles; (0, 0) if the image is not split."""
        tile = self.max_image_size
        width, height = _scaled(size, self.longest_edge)
        ratio = width / height
        if width >= height:
            width = _round_up(width, tile)
            height = _round_up(int(width / ratio), tile)
        else:
            height = _round_up(height, tile)
            width = _round_up(int(height * ratio), tile)
        return (height // tile, width // tile) if max(width, height) > tile else (0, 0)


def _scaled(size: ImageSize, longest_edge: int) -> ImageSize:
    """Scale the longer side to `longest_edge` and the other to an even number, then both to at most 4096."""
    width, height = size
    ratio = width / height
    if width >= height:
        width, height = longest_edge, int(longest_edge / ratio)
        height = max(height + height % 2, 1)
    else:
        width, height = int(longest_edge * ratio), longest_edge
        width = max(width + width % 2, 1)
    ratio = width / height
    if width >= height and width > MAX_SIDE:
        width, height = MAX_SIDE, max(int(MAX_SIDE / ratio), 1)
    elif height > MAX_SIDE:
        width, height = max(int(MAX_SIDE * ratio), 1), MAX_SIDE
    return ImageSize(width, height)


def _round_up(side: int, tile: int) -> int:
    return -(-side // tile) * tile


@dataclass(frozen=True, kw_only=True)
class Idefics3(SmolVLM):
    """Idefics3: the vocabulary has no tags, so they are text of several tokens each."""

    checkpoint = "HuggingFaceM4/Idefics3-8B-Llama3"

    longest_edge: int = 4 * 364
    max_image_size: int = 364
    image_seq_len: int = 169

    control_tokens: ClassVar[re.Pattern[str]] = re.compile(
        r"<\|(?:begin_of_text|end_of_text|start_header_id|end_header_id|eot_id)\|>|<end_of_utterance>"
        r"|<fake_token_around_image>|<image>"
    )

    def _tag(self, tag: str) -> ImagePart:
        return tag

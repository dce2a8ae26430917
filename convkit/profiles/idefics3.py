"""Idefics3 and SmolVLM: an image becomes rows of square tiles, each with its place, and a view of the whole.

Source: `Idefics3ImageProcessor`, `Idefics3Processor` and their SmolVLM twins of transformers.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from convkit.errors import ConvkitError
from convkit.profiles.base import ChatTemplate, ImagePart, ImageSize, TokenProfile

MAX_SIDE = 4096
"""Pixels; whatever the options say, no image is scaled to more."""
MAX_GRID = 6
"""Tiles in a row or column for which the vocabulary has tags."""


@dataclass(frozen=True, kw_only=True)
class SmolVLM(TokenProfile):
    """Tiles of `max_image_size` pixels a side, `image_seq_len` tokens each; every tag is one token."""

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
                f"{MAX_GRID} tiles in a row, for which the model has no tags. Choose a smaller longest_edge."
            )

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """A frame token, the tag and the tokens of each tile, a line end a row; then the view of the whole."""
        return list(self._parts(*self.grid(size)))

    def _parts(self, rows: int, columns: int) -> Iterator[ImagePart]:
        for row in range(rows):
            for column in range(columns):
                yield from (1, self._tag(f"<row_{row + 1}_col_{column + 1}>"), self.image_seq_len)
            yield 1  # the line end; that of the last row makes one token with the empty line that follows
        yield from (1, self._tag("<global-img>"), self.image_seq_len, 1)

    def _tag(self, tag: str) -> ImagePart:
        return 1

    def grid(self, size: ImageSize) -> tuple[int, int]:
        """Rows and columns of tiles; none where the image is not split."""
        tile = self.max_image_size
        width, height = _scaled(size, self.longest_edge)
        ratio = width / height
        if width >= height:
            width = _whole(width, tile)
            height = _whole(int(width / ratio), tile)
        else:
            height = _whole(height, tile)
            width = _whole(int(height * ratio), tile)
        return (height // tile, width // tile) if max(width, height) > tile else (0, 0)


def _scaled(size: ImageSize, longest_edge: int) -> ImageSize:
    """The longer side becomes `longest_edge`, the other follows and is made even; then at most 4096 each."""
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


def _whole(side: int, tile: int) -> int:
    return -(-side // tile) * tile


@dataclass(frozen=True, kw_only=True)
class Idefics3(SmolVLM):
    """The vocabulary has no tags: they are text, several tokens each, known only to the tokenizer."""

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

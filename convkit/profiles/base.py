"""The base class of token profiles: the arithmetic of a model's chat template and image processor.

Each model family is one file with a `TokenProfile`. Its fields are the constants of the processor, with the names of
the processor's configuration and the values of the reference checkpoint. `image_parts` is the formula for an image.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import ClassVar, NamedTuple

from convkit.schema import IMAGE_MARKER, Row, Turn


class ImageSize(NamedTuple):
    """Width and height of an image in pixels, from its header."""

    width: int
    height: int


class TokenCount(NamedTuple):
    """Bounds of a number of tokens; equal bounds if it is known exactly."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Return whether the number is known exactly."""
        return self.low == self.high


class UnsupportedShape(Exception):
    """The model's processor rejects an image of this shape; the message does not name the image."""


TokenCounter = Callable[[str], int]
"""Counts the tokens of a text like the model's tokenizer: with added tokens, without BOS."""

ImagePart = int | str
"""A part of the input for an image: a number of tokens, or text for the tokenizer to count."""

MAX_BYTES_PER_TOKEN = 16
"""Estimates assume 1 to 16 UTF-8 bytes per token; the lower bound counts a run of one character once. A byte-level
tokenizer never needs more tokens than bytes. Only texts of a vocabulary's longest words have more bytes per token."""
_REPEATED = re.compile(r"(.)\1+", re.DOTALL)


def estimate(text: str, control: re.Pattern[str]) -> TokenCount:
    """Return bounds of the number of tokens of a text; a control token counts as one."""
    low = high = 0
    for index, piece in enumerate(control.split(text)):
        if index:
            low, high = low + 1, high + 1
        if piece:
            low += len(_REPEATED.sub(r"\1", piece).encode(errors="replace")) // MAX_BYTES_PER_TOKEN
            high += len(piece.encode(errors="replace")) + 1  # tokenizers may put a space before a piece
    return TokenCount(low, high)


def _text(text: str, tokenizer: TokenCounter | None, control: re.Pattern[str]) -> TokenCount:
    if tokenizer is None:
        return estimate(text, control)
    return TokenCount(tokens := tokenizer(text) if text else 0, tokens)


# Most rows share prompts, answers and image sizes.
_CACHED_LENGTH = 2000
_short_text = lru_cache(8192)(_text)


@lru_cache(8192)
def _image_tokens(profile: "TokenProfile", size: ImageSize, images: int, tokenizer: TokenCounter | None) -> TokenCount:
    parts = profile.image_parts(size, images)
    return _sum(
        [TokenCount(p, p) if isinstance(p, int) else _text(p, tokenizer, profile.control_tokens) for p in parts]
    )


def _sum(counts: Sequence[TokenCount]) -> TokenCount:
    return TokenCount(sum([count.low for count in counts]), sum([count.high for count in counts]))


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A chat template: the text around each message of a conversation."""

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str]
    last_assistant: str | None = None
    """Prefix of the last answer, if the generation prompt differs from the prefix of earlier answers."""
    default_system: str | None = None
    """Default system prompt for rows without one."""
    system_in_user: bool = False
    """True if the system prompt is part of the first user message."""
    image_start: str = ""
    """Text before each image."""
    image_end: str = ""
    """Text after each image that precedes the user text."""
    marked_image_end: str = ""
    """Text after each image that replaces an `<image>` marker."""
    images_end: str = ""
    """Text between the images and the user text."""
    text_first: str = ""
    """Text before a user message that does not begin with an image."""
    end: str = ""
    """Text after the last answer."""
    bos: int = 0
    """Number of BOS tokens; with `bos_each_piece`, also after each image."""
    bos_each_piece: bool = False

    def pieces(self, row: Row) -> list[str]:
        """Return the text before, between and after the images: one piece more than there are images."""
        pieces: list[list[str]] = [[]]
        prompt = self.default_system if row.system is None else row.system
        system = [] if prompt is None else [self.system[0], prompt, self.system[1]]
        for turn in row.conversations:
            pieces[-1] += [self.user[0], *system] if self.system_in_user else [*system, self.user[0]]
            system = []
            self._user(turn, pieces)
            last = self.last_assistant if turn is row.conversations[-1] else None
            pieces[-1] += [self.user[1], last or self.assistant[0]]
            if turn.assistant is not None:
                pieces[-1] += [turn.assistant, self.assistant[1]]
        if row.conversations[-1].assistant is not None:
            pieces[-1].append(self.end)
        return ["".join(piece) for piece in pieces]

    def _user(self, turn: Turn, pieces: list[list[str]]) -> None:
        marked = turn.user.split(IMAGE_MARKER)
        if len(marked) > 1:
            pieces[-1].append((self.text_first if marked[0] else "") + marked[0])
            for text in marked[1:]:
                pieces[-1].append(self.image_start)
                pieces.append([self.marked_image_end, text])
            return
        for _ in turn.images:
            pieces[-1].append(self.image_start)
            pieces.append([self.image_end])
        pieces[-1] += [self.images_end if turn.images else self.text_first, turn.user]


@dataclass(frozen=True, kw_only=True)
class TokenProfile:
    """The token counts of a model. Its fields are integer options."""

    checkpoint: ClassVar[str]
    """The reference checkpoint, whose constants are the defaults."""
    template: ClassVar[ChatTemplate]
    control_tokens: ClassVar[re.Pattern[str]]
    """Matches strings that the tokenizer or processor treats as control tokens; has no groups."""

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """Return the parts of the input for one image, including wrappers and separators.

        Args:
            size: of the image.
            images: number of images in the row; some processors treat a single image differently.

        Raises:
            UnsupportedShape: the model's processor rejects this shape.
        """
        raise NotImplementedError

    def image_tokens(self, size: ImageSize, images: int = 1, tokenizer: TokenCounter | None = None) -> TokenCount:
        """Return the number of tokens of one image; exact, unless the family encodes tags as text.

        Raises:
            UnsupportedShape: the model's processor rejects this shape.
        """
        return _image_tokens(self, size, images, tokenizer)

    def row_tokens(self, row: Row, sizes: Sequence[ImageSize], tokenizer: TokenCounter | None = None) -> TokenCount:
        """Return the number of tokens of a row, including answers and the chat template.

        Args:
            row: the row.
            sizes: of all images of the row, in order.
            tokenizer: the model's tokenizer; None estimates text tokens.

        Raises:
            UnsupportedShape: the model's processor rejects one of the shapes.
        """
        pieces = self.template.pieces(row)
        bos = self.template.bos * (len(pieces) if self.template.bos_each_piece else 1)
        counts = [TokenCount(bos, bos), *(self._text(piece, tokenizer) for piece in pieces)]
        counts += (self.image_tokens(size, len(sizes), tokenizer) for size in islice(sizes, len(pieces) - 1))
        return _sum(counts)

    def _text(self, text: str, tokenizer: TokenCounter | None) -> TokenCount:
        return (_short_text if len(text) <= _CACHED_LENGTH else _text)(text, tokenizer, self.control_tokens)

"""What a profile is: the arithmetic by which a model's processor turns a row into tokens, without the model.

A family is one file: a `TokenProfile` whose fields are the constants of the processor, under the names of its
configuration and with the values of the reference checkpoint, and the closed form for an image.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import ClassVar, NamedTuple

from convkit.schema import IMAGE_MARKER, Row, Turn


class ImageSize(NamedTuple):
    """Width and height of an image in pixels, as its header says."""

    width: int
    height: int


class TokenCount(NamedTuple):
    """A number of tokens: known when both bounds are equal, else an estimate between them."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether the number is known."""
        return self.low == self.high


class UnsupportedShape(Exception):
    """The model's processor fails on an image of this shape; the message says why, without naming the image."""


TokenCounter = Callable[[str], int]
"""Counts the tokens of a text, added tokens recognised and no BOS added, as the model's tokenizer does."""

ImagePart = int | str
"""Of what stands for an image: a number of tokens, or text that the tokenizer has to count."""

MAX_BYTES_PER_TOKEN = 16
"""An estimate takes a token for 1 to 16 bytes of UTF-8, a run of one character counted once for the lower bound.
No tokenizer of bytes or with byte fallback needs more tokens than there are bytes; fewer than one in 16 takes a text
that is made of a vocabulary's longest words alone."""
_RUN = re.compile(r"(.)\1+", re.DOTALL)


def estimate(text: str, control: re.Pattern[str]) -> TokenCount:
    """Bounds of the number of tokens of a text; a control token counts as one."""
    low = high = 0
    for index, piece in enumerate(control.split(text)):
        if index:
            low, high = low + 1, high + 1
        if piece:
            low += len(_RUN.sub(r"\1", piece).encode(errors="replace")) // MAX_BYTES_PER_TOKEN
            high += len(piece.encode(errors="replace")) + 1  # a blank may be put before a piece
    return TokenCount(low, high)


def _text(text: str, tokenizer: TokenCounter | None, control: re.Pattern[str]) -> TokenCount:
    if tokenizer is None:
        return estimate(text, control)
    return TokenCount(tokens := tokenizer(text) if text else 0, tokens)


# Most rows repeat a prompt, an answer, and a size.
_SHORT = 2000
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
    """How a conversation becomes one text: what stands around each message."""

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str]
    last_assistant: str | None = None
    """Before the last answer, where a prompt does not end as earlier answers begin."""
    default_system: str | None = None
    """What stands in for a system prompt where the row has none."""
    system_in_user: bool = False
    """The system prompt is the beginning of the first user message."""
    image_start: str = ""
    """Before each image."""
    image_end: str = ""
    """After each image that stands before the text."""
    marked_image_end: str = ""
    """After each image whose place the text marks."""
    images_end: str = ""
    """Between the images and the text."""
    text_first: str = ""
    """Before a user's text that does not begin with an image."""
    end: str = ""
    """After the last answer."""
    bos: int = 0
    """Tokens that begin the row; with `bos_each_piece` also the text after each image."""
    bos_each_piece: bool = False

    def pieces(self, row: Row) -> list[str]:
        """The text before, between and after the images: one piece more than the row has images."""
        pieces: list[list[str]] = [[]]
        said = self.default_system if row.system is None else row.system
        system = [] if said is None else [self.system[0], said, self.system[1]]
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
    """What convkit knows of a model. Fields are the options; they are whole numbers."""

    checkpoint: ClassVar[str]
    """The checkpoint whose constants are the defaults."""
    template: ClassVar[ChatTemplate]
    control_tokens: ClassVar[re.Pattern[str]]
    """Matches what the tokenizer or the processor takes for something else than text. Has no groups."""

    def image_parts(self, size: ImageSize, images: int = 1) -> Sequence[ImagePart]:
        """What stands in the input for one image, wrappers and separators included.

        Args:
            images: how many the row has: some processors treat the only image of a row in another way.

        Raises:
            UnsupportedShape: the model's processor fails on this shape.
        """
        raise NotImplementedError

    def image_tokens(self, size: ImageSize, images: int = 1, tokenizer: TokenCounter | None = None) -> TokenCount:
        """The number of tokens of one image; exact, except where a family writes its tags as text.

        Raises:
            UnsupportedShape: the model's processor fails on this shape.
        """
        return _image_tokens(self, size, images, tokenizer)

    def row_tokens(self, row: Row, sizes: Sequence[ImageSize], tokenizer: TokenCounter | None = None) -> TokenCount:
        """The length of a row, answers and template included.

        Args:
            sizes: of all images of the row, in order.
            tokenizer: the model's tokenizer; without it the text is estimated.

        Raises:
            UnsupportedShape: the model's processor fails on one of the shapes.
        """
        pieces = self.template.pieces(row)
        bos = self.template.bos * (len(pieces) if self.template.bos_each_piece else 1)
        counts = [TokenCount(bos, bos), *(self._text(piece, tokenizer) for piece in pieces)]
        counts += (self.image_tokens(size, len(sizes), tokenizer) for size in islice(sizes, len(pieces) - 1))
        return _sum(counts)

    def _text(self, text: str, tokenizer: TokenCounter | None) -> TokenCount:
        return (_short_text if len(text) <= _SHORT else _text)(text, tokenizer, self.control_tokens)

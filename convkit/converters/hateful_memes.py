"""Hateful Memes: is a meme hateful, by its picture and its text taken together?

Layout: JSON Lines files train.jsonl and dev.jsonl, test.jsonl, or dev_seen, dev_unseen, test_seen, test_unseen, at any
depth, and images in `img/` or any other folders. The official dev_seen and dev_unseen share memes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from convkit.converters.annotated import (
    AnnotatedOptions,
    AnnotatedPictures,
    Annotation,
    Fields,
    fill,
    json_lines,
    two_words,
)
from convkit.converters.base import Reject
from convkit.converters.picture_index import stem_of
from convkit.converters.pictures import IMAGE_SUFFIXES, IMPORTS
from convkit.schema import Row, Turn

ID_DIGITS = 5
_DEFAULT_WORDS = ("Yes", "No")
_TEXT = 'The text on the meme is: "{text}"\n'


class HatefulMemesOptions(AnnotatedOptions):
    """Options of `hateful-memes`."""

    prompt: str = Field(
        "Is this meme hateful? Answer {yes} or {no}.",
        min_length=1,
        description="The user's text; {yes} and {no} stand for the answer words, {text} for the meme's text.",
    )
    text_in_prompt: bool = Field(False, description="Put the meme's text before the prompt.")
    answer_words: Annotated[tuple[str, str], BeforeValidator(two_words(_DEFAULT_WORDS))] = Field(
        _DEFAULT_WORDS, description="The words for hateful and not hateful, separated by a comma. Default: Yes,No."
    )
    limit: int | None = Field(None, ge=1, description="At most this many memes of each split.")


class _Row(Fields):
    # One release has numbers, another the same numbers as strings with leading zeros.
    id: Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
    img: str = Field(min_length=1)
    text: str
    label: Literal[0, 1] | None = None


@dataclass(frozen=True)
class Meme(Annotation):
    """A meme; its key is its id in five digits."""

    text: str
    label: int | None


class HatefulMemes(AnnotatedPictures[Meme]):
    """A meme becomes one row, with the label and the text in its metadata."""

    name = "hateful-memes"
    unit = "meme"
    version = 2
    Options = HatefulMemesOptions
    suffixes = IMAGE_SUFFIXES | {".jsonl"}
    imports = IMPORTS
    split_names: ClassVar = {
        "train": "train",
        "dev": "val",
        "dev_seen": "dev_seen",
        "dev_unseen": "dev_unseen",
        "test": "test",
        "test_seen": "test_seen",
        "test_unseen": "test_unseen",
    }
    file_names = ("{split}.jsonl",)
    options: HatefulMemesOptions

    def annotations(self, official: str, path: str) -> Iterator[Meme | Reject]:
        """A line each."""
        for read in json_lines(self.root, path, _Row):
            yield read if isinstance(read, Reject) else _meme(*read)

    def rows(self, split: str, annotations: tuple[Meme, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """The row of one meme; without a label, it has no assistant."""
        (meme,) = annotations
        yes, no = self.options.answer_words
        template = (_TEXT if self.options.text_in_prompt else "") + self.options.prompt
        user = fill(template, text=meme.text, yes=yes, no=no)
        metadata: dict[str, JsonValue] = {"text": meme.text}
        if meme.label is None:
            turn = Turn(images=images, user=user)
        else:
            turn = Turn(images=images, user=user, assistant=yes if meme.label else no)
            metadata = {"label": meme.label, **metadata}
        row = Row(
            id=f"{split}-{meme.key}",
            source=self.name,
            conversations=(turn,),
            group=stem_of(meme.images[0]),
            metadata=metadata,
        )
        return (row,)


def _meme(address: str, row: _Row) -> Meme:
    key = str(row.id)
    if key.isdecimal() and key.isascii():
        key = key.lstrip("0").zfill(ID_DIGITS)
    return Meme(address, key, (row.img,), row.text, row.label)

"""Convert Hateful Memes: is a meme hateful, given its image and text together?

Layout: JSON Lines files train.jsonl and dev.jsonl, test.jsonl, or dev_seen, dev_unseen, test_seen, test_unseen, at any
depth, and images in `img/` or any other folders. The official dev_seen and dev_unseen share memes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from convkit.converters.annotated import (
    AnnotatedImages,
    AnnotatedOptions,
    Annotation,
    AnnotationModel,
    fill_template,
    word_pair,
)
from convkit.converters.image_index import image_stem
from convkit.converters.image_store import IMAGE_SUFFIXES, WORKER_IMPORTS
from convkit.schema import Row, Turn

ID_DIGITS = 5
_DEFAULT_WORDS = ("Yes", "No")
_TEXT = 'The text on the meme is: "{text}"\n'


class HatefulMemesOptions(AnnotatedOptions):
    """Options of the `hateful-memes` converter."""

    prompt: str = Field(
        "Is this meme hateful? Answer {yes} or {no}.",
        min_length=1,
        description="User prompt; {yes} and {no} are replaced by the answer words, {text} by the meme's text.",
    )
    text_in_prompt: bool = Field(False, description="Insert the meme's text before the prompt.")
    answer_words: Annotated[tuple[str, str], BeforeValidator(word_pair(_DEFAULT_WORDS))] = Field(
        _DEFAULT_WORDS, description="Answers for hateful and not hateful, separated by a comma. Default: Yes,No."
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of memes per split.")


class _Fields(AnnotationModel):
    # One release has numbers, another the same numbers as strings with leading zeros.
    id: Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
    img: str = Field(min_length=1)
    text: str
    label: Literal[0, 1] | None = None


@dataclass(frozen=True)
class Meme(Annotation):
    """Hold one meme; its key is its id in five digits."""

    text: str
    label: int | None


class HatefulMemes(AnnotatedImages[Meme]):
    """Convert a meme to one row, with its label and text as metadata."""

    name = "hateful-memes"
    unit = "meme"
    version = 2
    Options = HatefulMemesOptions
    suffixes = IMAGE_SUFFIXES | {".jsonl"}
    imports = WORKER_IMPORTS
    split_names: ClassVar = {
        "train": "train",
        "dev": "val",
        "dev_seen": "dev_seen",
        "dev_unseen": "dev_unseen",
        "test": "test",
        "test_seen": "test_seen",
        "test_unseen": "test_unseen",
    }
    annotation_fields = _Fields
    file_names = ("{split}.jsonl",)
    options: HatefulMemesOptions

    def annotation(self, official: str, address: str, fields: _Fields) -> Meme:
        """Return the annotation of one line."""
        key = str(fields.id)
        if key.isdecimal() and key.isascii():
            key = key.lstrip("0").zfill(ID_DIGITS)
        return Meme(address, key, (fields.img,), fields.text, fields.label)

    def rows(self, split: str, annotations: tuple[Meme, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the row of one meme; without a label, it has no assistant answer."""
        (meme,) = annotations
        yes, no = self.options.answer_words
        template = (_TEXT if self.options.text_in_prompt else "") + self.options.prompt
        user = fill_template(template, text=meme.text, yes=yes, no=no)
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
            group=image_stem(meme.images[0]),
            metadata=metadata,
        )
        return (row,)

"""NLVR2: is a sentence true of a pair of photographs?

Layout: JSON Lines files named train.json, dev.json, test1.json, test2.json at any depth, and images named
`<split>-<set>-<pair>-img0` (left) and `-img1` (right) in any folders. Some 5 % of the images cannot be had any more:
what they cost is accounted for, and ends no run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from convkit.converters.annotated import (
    BAD_ANNOTATION,
    AnnotatedOptions,
    AnnotatedPictures,
    Annotation,
    Fields,
    fill,
    json_lines,
    two_words,
)
from convkit.converters.base import Reject
from convkit.converters.pictures import IMAGE_SUFFIXES, IMPORTS
from convkit.schema import Row, Turn

_DEFAULT_WORDS = ("True", "False")


class NLVR2Options(AnnotatedOptions):
    """Options of `nlvr2`."""

    prompt: str = Field(
        'Given the left and right images, does the statement "{sentence}" hold true? Answer {true} or {false}.',
        pattern=r"\{sentence\}",
        description="The user's text; {sentence} stands for the statement, {true} and {false} for the answer words. "
        "The default is in the manner of The Cauldron, which asks in several wordings.",
    )
    answer_words: Annotated[tuple[str, str], BeforeValidator(two_words(_DEFAULT_WORDS))] = Field(
        _DEFAULT_WORDS,
        description="The words for true and false, separated by a comma. Default: True,False, which are the release's "
        "labels; The Cauldron answers Yes. and No.",
    )
    limit: int | None = Field(None, ge=1, description="At most this many rows of each split.")


class _Row(Fields):
    identifier: str = Field(pattern=r"^(train|dev|test1|test2)-[0-9]+-[0-9]+-[0-9]+$")
    sentence: str = Field(min_length=1)
    label: Literal["True", "False"] | None = None
    synset: str | None = None
    directory: int | str | None = None


@dataclass(frozen=True)
class Statement(Annotation):
    """A sentence about a pair; its key is the identifier."""

    sentence: str
    label: str | None
    synset: str | None


class NLVR2(AnnotatedPictures[Statement]):
    """A sentence and its two images, left and right, become one row; the rows of one image set are a group."""

    name = "nlvr2"
    unit = "pair"
    version = 2
    Options = NLVR2Options
    suffixes = IMAGE_SUFFIXES | {".json"}
    expected_missing = 0.1
    imports = IMPORTS
    split_names: ClassVar = {"train": "train", "dev": "val", "test1": "test1", "test2": "test2"}
    file_names = ("{split}.json",)
    options: NLVR2Options

    def annotations(self, official: str, path: str) -> Iterator[Statement | Reject]:
        """A line each."""
        for read in json_lines(self.root, path, _Row):
            yield read if isinstance(read, Reject) else _statement(official, *read)

    def rows(self, split: str, annotations: tuple[Statement, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """The row of one sentence; without a label, it has no assistant."""
        (statement,) = annotations
        true, false = self.options.answer_words
        user = fill(self.options.prompt, sentence=statement.sentence, true=true, false=false)
        official, image_set, _, sentence = statement.key.split("-")
        metadata: dict[str, JsonValue] = {
            "identifier": statement.key,
            "sentence_id": f"{official}-{image_set}-{sentence}",
        }
        if statement.synset is not None:
            metadata["synset"] = statement.synset
        if statement.label is None:
            turn = Turn(images=images, user=user)
        else:
            turn = Turn(images=images, user=user, assistant=true if statement.label == "True" else false)
        group = f"{official}-{image_set}"
        row = Row(id=statement.key, source=self.name, conversations=(turn,), group=group, metadata=metadata)
        return (row,)


def _statement(official: str, address: str, row: _Row) -> Statement | Reject:
    pair = row.identifier.rpartition("-")[0]
    if not pair.startswith(f"{official}-"):
        return Reject(address, BAD_ANNOTATION, f"identifier: {row.identifier} does not belong to {official}")
    folder = official if row.directory is None else row.directory
    images = (f"{folder}/{pair}-img0.png", f"{folder}/{pair}-img1.png")
    return Statement(address, row.identifier, images, row.sentence, row.label, row.synset)

"""Convert NLVR2: is a sentence true of a pair of photographs?

Layout: JSON Lines files named train.json, dev.json, test1.json, test2.json at any depth, and images named
`<split>-<set>-<pair>-img0` (left) and `-img1` (right) in any folders. About 5 % of the images are no longer available
online. Their pairs are quarantined, and do not stop the run.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from convkit.converters.annotated import (
    BAD_ANNOTATION,
    AnnotatedImages,
    AnnotatedOptions,
    Annotation,
    AnnotationModel,
    fill_template,
    word_pair,
)
from convkit.converters.base import Reject
from convkit.converters.image_store import IMAGE_SUFFIXES, WORKER_IMPORTS
from convkit.schema import Row, Turn

_DEFAULT_WORDS = ("True", "False")


class NLVR2Options(AnnotatedOptions):
    """Options of the `nlvr2` converter."""

    prompt: str = Field(
        'Given the left and right images, does the statement "{sentence}" hold true? Answer {true} or {false}.',
        pattern=r"\{sentence\}",
        description="User prompt; {sentence} is replaced by the statement, {true} and {false} by the answer words. "
        "The default follows The Cauldron, which uses several wordings.",
    )
    answer_words: Annotated[tuple[str, str], BeforeValidator(word_pair(_DEFAULT_WORDS))] = Field(
        _DEFAULT_WORDS,
        description="Answers for true and false, separated by a comma. Default: True,False, the release's labels; "
        "The Cauldron uses Yes. and No.",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of rows per split.")


class _Fields(AnnotationModel):
    identifier: str = Field(pattern=r"^(train|dev|test1|test2)-[0-9]+-[0-9]+-[0-9]+$")
    sentence: str = Field(min_length=1)
    label: Literal["True", "False"] | None = None
    synset: str | None = None
    directory: int | str | None = None


@dataclass(frozen=True)
class Statement(Annotation):
    """Hold a sentence about a pair of images; its key is the identifier."""

    sentence: str
    label: str | None
    synset: str | None


class NLVR2(AnnotatedImages[Statement]):
    """Convert a sentence and its two images, left and right, to one row; the rows of an image set form one group."""

    name = "nlvr2"
    unit = "pair"
    version = 2
    Options = NLVR2Options
    suffixes = IMAGE_SUFFIXES | {".json"}
    expected_missing = 0.1
    imports = WORKER_IMPORTS
    split_names: ClassVar = {"train": "train", "dev": "val", "test1": "test1", "test2": "test2"}
    annotation_fields = _Fields
    file_names = ("{split}.json",)
    options: NLVR2Options

    def annotation(self, official: str, address: str, fields: _Fields) -> Statement | Reject:
        """Return the annotation of one line."""
        pair = fields.identifier.rpartition("-")[0]
        if not pair.startswith(f"{official}-"):
            return Reject(address, BAD_ANNOTATION, f"identifier: {fields.identifier} does not belong to {official}")
        folder = official if fields.directory is None else fields.directory
        images = (f"{folder}/{pair}-img0.png", f"{folder}/{pair}-img1.png")
        return Statement(address, fields.identifier, images, fields.sentence, fields.label, fields.synset)

    def rows(self, split: str, annotations: tuple[Statement, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the row of one sentence; without a label, it has no assistant answer."""
        (statement,) = annotations
        true, false = self.options.answer_words
        user = fill_template(self.options.prompt, sentence=statement.sentence, true=true, false=false)
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

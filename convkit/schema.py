"""The schema of rows and manifests, format version 1.

A row is a row of the fine-tuning recipe with more optional keys. Unused keys are absent: null is refused, so that every
row has one spelling. Parse a line with `Row.model_validate_json(line)`.
"""

from math import isfinite
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetPydanticSchema, JsonValue, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

FORMAT_VERSION = 1
IMAGE_MARKER = "<image>"
SCHEMA_ID = "urn:convkit:schema:v1"

# A path segment is not empty, "." or "..", and has no backslash and no control character. The first segment has no
# colon either, which excludes URLs, data URIs and drive letters. (The regex engine has no look-ahead.)
_CHAR = r"[^/\\\x00-\x1f\x7f]"
_PLAIN = r"[^/\\.\x00-\x1f\x7f]"
_SEGMENT = rf"(?:{_PLAIN}{_CHAR}*|\.{_PLAIN}{_CHAR}*|\.\.{_CHAR}+)"
_FIRST = _SEGMENT.replace(r"[^/\\", r"[^:/\\")
IMAGE_PATH_PATTERN = rf"^{_FIRST}(?:/{_SEGMENT})*$"


def _only_finite(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse NaN and infinity: the parser accepts them, but they are not JSON and would be written as null."""
    pending: list[JsonValue] = [metadata]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, float) and not isfinite(value):
            raise PydanticCustomError("not_finite", "numbers must be finite")
    return metadata


def _require_item(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
    return items


T = TypeVar("T")
# min_length of a tuple counts valid items only: it would report a list whose only item is invalid as empty, too.
NonEmptyTuple = Annotated[
    tuple[T, ...], Field(strict=False), AfterValidator(_require_item), Field(json_schema_extra={"minItems": 1})
]


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)

ImagePath = Annotated[str, Field(pattern=IMAGE_PATH_PATTERN, max_length=1024)]
# An absent key is None in Python and a missing key in JSON; the validated type is the plain one, without null.
OptionalStr = Annotated[str | None, GetPydanticSchema(lambda _source, handler: handler(str))]
OptionalGroup = Annotated[
    str | None, GetPydanticSchema(lambda _source, handler: handler(Annotated[str, Field(min_length=1)]))
]
OptionalAnswers = Annotated[
    tuple[str, ...] | None,
    GetPydanticSchema(lambda _source, handler: handler(NonEmptyTuple[str])),
]
OptionalMetadata = Annotated[
    dict[str, JsonValue] | None,
    GetPydanticSchema(lambda _source, handler: handler(Annotated[dict[str, JsonValue], AfterValidator(_only_finite)])),
]


def absent(description: str) -> Any:
    """Return the field of an optional key. Its type is one of the Optional types above, which refuse null."""
    return Field(default=None, description=description, json_schema_extra=_drop_default)


class Turn(BaseModel):
    """One turn of a conversation: images, the user's text, and the assistant's answer."""

    model_config = _STRICT

    images: Annotated[tuple[ImagePath, ...], Field(strict=False)] = Field(
        description="POSIX paths relative to the dataset's images/ folder, in prompt order."
    )
    user: str = Field(
        description="The user's text. The images come before it, unless it has <image> markers: then exactly one per "
        "image, in order."
    )
    assistant: OptionalStr = absent(
        "The label: the answer that is trained on. Only the last turn may lack it, in a split without labels."
    )
    answers: OptionalAnswers = absent("Every accepted answer, for evaluation.")

    @model_validator(mode="after")
    def _one_marker_per_image(self) -> Self:
        markers = self.user.count(IMAGE_MARKER)
        if markers and markers != len(self.images):
            raise PydanticCustomError(
                "marker_count",
                "{markers} <image> markers in the user's text for {images} images",
                {"markers": markers, "images": len(self.images)},
            )
        return self


class Row(BaseModel):
    """One row: a conversation of one or more turns, with its id and source."""

    model_config = ConfigDict(**_STRICT, title="convkit row", json_schema_extra={"$id": f"{SCHEMA_ID}:row"})

    id: str = Field(min_length=1, max_length=512, description="Unique in the dataset.")
    source: str = Field(min_length=1, description="The dataset that the row comes from.")
    conversations: NonEmptyTuple[Turn] = Field(description="The turns, in order.")
    system: OptionalStr = absent("The system prompt.")
    group: OptionalGroup = absent("Rows of one group must stay in one split, to prevent data leakage.")
    metadata: OptionalMetadata = absent("Provenance and other data that the model never sees.")

    @model_validator(mode="after")
    def _answers_before_the_last_turn(self) -> Self:
        for index, turn in enumerate(self.conversations[:-1]):
            if turn.assistant is None:
                raise PydanticCustomError(
                    "assistant_missing",
                    "turn {turn} has no assistant text; only the last turn may lack one",
                    {"turn": index},
                )
        return self

    def to_line(self) -> bytes:
        """Return the row as one line of JSON without line end: compact, UTF-8, keys in schema order, no absent keys."""
        return self.model_dump_json(exclude_none=True).encode()


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Split(BaseModel):
    """One split of a dataset: its row file and counts."""

    model_config = _STRICT

    file: str = Field(
        pattern=r"^[^/\\\x00-\x1f\x7f]+\.jsonl$", description="The row file, in the folder of the manifest."
    )
    rows: Count
    turns: Count
    images: Count = Field(description="Image references, including repeated ones.")
    sha256: Sha256 = Field(description="SHA-256 of the row file.")


class ConverterInfo(BaseModel):
    """The converter that wrote the dataset; it writes the same bytes for the same source."""

    model_config = _STRICT

    name: str
    version: int = Field(ge=1, description="Incremented when the same source and options give other bytes.")
    options: dict[str, JsonValue] = Field(description="All options that influence the output.")


class SourceInfo(BaseModel):
    """The source that the dataset was converted from."""

    model_config = _STRICT

    name: str = Field(description="Last part of the source's path, or its Hugging Face Hub address with the revision.")
    bytes: Count | None = Field(default=None, description="Size of the archive. Null for a folder.")
    fingerprint: Sha256 = Field(description="Digest of the list of the source's items: names, sizes, labels, order.")


class Accounting(BaseModel):
    """The item counts of a conversion: read = written + quarantined + excluded."""

    model_config = _STRICT

    unit: str = Field(description="The counted unit, such as clip or question.")
    read: Count
    written: Count
    quarantined: Count
    excluded: dict[str, Count] = Field(description="Items excluded by an option, by reason.")
    notes: dict[str, Count] = Field(description="Changes that were made to items, by note.")
    media_files: Count
    media_bytes: Count

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.read != self.written + self.quarantined + sum(self.excluded.values()):
            raise PydanticCustomError("accounting", "read must equal written + quarantined + excluded")
        return self


class Manifest(BaseModel):
    """dataset.json: the splits of a dataset directory, and the conversion that wrote them."""

    model_config = ConfigDict(**_STRICT, title="convkit manifest", json_schema_extra={"$id": f"{SCHEMA_ID}:manifest"})

    format_version: Literal[1] = Field(description="Version of the row and directory format.")
    name: str = Field(min_length=1, description="The dataset's name, with which the names of its row files begin.")
    splits: dict[str, Split] = Field(description="Splits by name, in the order of conversion.")
    converter: ConverterInfo
    source: SourceInfo
    accounting: Accounting

"""The row and the manifest, format version 1: the contract between every part of convkit and its users' files.

A row is the fine-tuning recipe's row plus optional keys, which are absent when they are not used; there is one
spelling of every row, so null is never accepted for absent. Validate bytes with
`Row.model_validate_json(line)`.
"""

from math import isfinite
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetPydanticSchema, JsonValue, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

FORMAT_VERSION = 1
IMAGE_MARKER = "<image>"
SCHEMA_ID = "urn:convkit:schema:v1"

# A path segment is neither empty nor "." nor "..", and holds no backslash and no control character. The first one
# holds no colon, which also rules out URLs, data URIs and drive letters. (The regex engine has no look-ahead.)
_CHAR = r"[^/\\\x00-\x1f\x7f]"
_PLAIN = r"[^/\\.\x00-\x1f\x7f]"
_SEGMENT = rf"(?:{_PLAIN}{_CHAR}*|\.{_PLAIN}{_CHAR}*|\.\.{_CHAR}+)"
_FIRST = _SEGMENT.replace(r"[^/\\", r"[^:/\\")
IMAGE_PATH_PATTERN = rf"^{_FIRST}(?:/{_SEGMENT})*$"


def _only_finite(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse NaN and infinity, which the parser lets through: they are no JSON, and would be written as null."""
    waiting: list[JsonValue] = [metadata]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, float) and not isfinite(value):
            raise PydanticCustomError("not_finite", "a number is infinite or not a number")
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
# Absent is None in Python and a missing key in JSON; the schema that validates is the plain type, without null.
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
    """A key that is left out when it is not used; its type is one of the Optional ones, which refuse null."""
    return Field(default=None, description=description, json_schema_extra=_drop_default)


class Turn(BaseModel):
    """One exchange: images, what the user says, and what the assistant answers."""

    model_config = _STRICT

    images: Annotated[tuple[ImagePath, ...], Field(strict=False)] = Field(
        description="POSIX paths relative to the data set's images/ folder, in the order in which they are shown."
    )
    user: str = Field(
        description="The user's text. The images stand before it, unless it holds <image> markers: then exactly one "
        "for each image, in order."
    )
    assistant: OptionalStr = absent(
        "The answer that is trained on. May be absent in the last turn only, where the split has no labels."
    )
    answers: OptionalAnswers = absent("Every accepted answer, for evaluation.")

    @model_validator(mode="after")
    def _one_marker_an_image(self) -> Self:
        markers = self.user.count(IMAGE_MARKER)
        if markers and markers != len(self.images):
            raise PydanticCustomError(
                "marker_count",
                "{markers} <image> markers in the user's text for {images} images",
                {"markers": markers, "images": len(self.images)},
            )
        return self


class Row(BaseModel):
    """One row: a conversation of one or more turns."""

    model_config = ConfigDict(**_STRICT, title="convkit row", json_schema_extra={"$id": f"{SCHEMA_ID}:row"})

    id: str = Field(min_length=1, max_length=512, description="Unique in the data set.")
    source: str = Field(min_length=1, description="The data set that the row comes from.")
    conversations: NonEmptyTuple[Turn] = Field(description="The turns, in order.")
    system: OptionalStr = absent("The system prompt.")
    group: OptionalGroup = absent("Rows of one group may not be separated by a split.")
    metadata: OptionalMetadata = absent("Provenance and anything else that is not shown to the model.")

    @model_validator(mode="after")
    def _answers_but_the_last(self) -> Self:
        for index, turn in enumerate(self.conversations[:-1]):
            if turn.assistant is None:
                raise PydanticCustomError(
                    "assistant_missing",
                    "turn {turn} has no assistant text; only the last turn may lack it",
                    {"turn": index},
                )
        return self

    def to_line(self) -> bytes:
        """The row as one JSON line, without line end: compact, UTF-8, keys in schema order, absent keys left out."""
        return self.model_dump_json(exclude_none=True).encode()


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Split(BaseModel):
    """One split of a data set."""

    model_config = _STRICT

    file: str = Field(pattern=r"^[^/\\\x00-\x1f\x7f]+\.jsonl$", description="The row file, beside the manifest.")
    rows: Count
    turns: Count
    images: Count = Field(description="Image references, repeated ones counted each time.")
    sha256: Sha256 = Field(description="Digest of the row file.")


class ConverterInfo(BaseModel):
    """What made the data set; with the same source it makes the same bytes again."""

    model_config = _STRICT

    name: str
    version: int = Field(ge=1, description="Raised whenever the same source and options give other bytes.")
    options: dict[str, JsonValue] = Field(description="Every option that has a bearing on the bytes.")


class SourceInfo(BaseModel):
    """What the data set was made from."""

    model_config = _STRICT

    name: str = Field(description="Last part of the source's path, or its address on a hub with the revision.")
    bytes: Count | None = Field(default=None, description="Size of the archive; null for a folder.")
    fingerprint: Sha256 = Field(description="Digest of the list of the source's items: names, sizes, labels, order.")


class Accounting(BaseModel):
    """Where everything went: read = written + quarantined + excluded."""

    model_config = _STRICT

    unit: str = Field(description="What is counted, such as clip or question.")
    read: Count
    written: Count
    quarantined: Count
    excluded: dict[str, Count] = Field(description="Left out by request, counted by reason.")
    notes: dict[str, Count] = Field(description="What was done to items on the way, counted by note.")
    media_files: Count
    media_bytes: Count

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.read != self.written + self.quarantined + sum(self.excluded.values()):
            raise PydanticCustomError("accounting", "read is not written + quarantined + excluded")
        return self


class Manifest(BaseModel):
    """dataset.json: what a dataset directory holds, and how it came about."""

    model_config = ConfigDict(**_STRICT, title="convkit manifest", json_schema_extra={"$id": f"{SCHEMA_ID}:manifest"})

    format_version: Literal[1] = Field(description="Version of the row and directory format.")
    name: str = Field(min_length=1, description="The data set's name, the first part of its row files' names.")
    splits: dict[str, Split] = Field(description="Splits by name, in the order in which they were converted.")
    converter: ConverterInfo
    source: SourceInfo
    accounting: Accounting

"""The row schema as plain dictionaries: what a row of `convkit.schema` is, without objects and Python validators.

It takes two thirds of the time. It accepts every sound row, and of others only those that break the two rules which
need Python: markers that are not as many as the images, and a turn without assistant text that is not the last. A
test holds the two schemas together.
"""

from collections.abc import Callable
from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter
from pydantic_core import SchemaValidator
from typing_extensions import TypedDict

from convkit.schema import (
    ImagePath,
    OptionalAnswers,
    OptionalGroup,
    OptionalMetadata,
    OptionalStr,
)

_STRICT = ConfigDict(extra="forbid", strict=True)


class PlainTurn(TypedDict):
    """`convkit.schema.Turn`."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    images: list[ImagePath]
    user: str
    assistant: NotRequired[str]
    answers: NotRequired[OptionalAnswers]


class PlainRow(TypedDict):
    """`convkit.schema.Row`."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    id: Annotated[str, Field(min_length=1, max_length=512)]
    source: Annotated[str, Field(min_length=1)]
    conversations: Annotated[list[PlainTurn], Field(min_length=1)]
    system: NotRequired[OptionalStr]
    group: NotRequired[OptionalGroup]
    metadata: NotRequired[OptionalMetadata]


# Keys are the same in all rows, but most texts are new: to look for each among those seen takes a sixth of the time.
_VALIDATOR = SchemaValidator(TypeAdapter(PlainRow).core_schema, {"cache_strings": "keys"})
read_row: Callable[[bytes], PlainRow] = _VALIDATOR.validate_json
"""Parse a line; it is no row if this raises a ValidationError."""


def keys_of(row: PlainRow) -> int:
    """How many keys a row has, those within its values included."""
    return _keys_within(row)  # type: ignore[arg-type]


def _keys_within(value: JsonValue) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_within, value.values()))
    return sum(map(_keys_within, value)) if isinstance(value, list) else 0

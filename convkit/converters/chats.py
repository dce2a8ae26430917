"""Parse rows of Parquet files in the common conversation layouts of the Hugging Face Hub.

The layout is detected from the columns beside the image column:
    texts       The Cauldron: structs of user, assistant, source; all images come first
    messages    chat: role and content; content is text or a list of parts (type image or text)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from convkit.converters.parquet import Layout, RawRow, RowGroup, row_images
from convkit.errors import ItemError
from convkit.schema import IMAGE_MARKER

LAYOUTS = {"texts": Layout(("texts",)), "messages": Layout(("messages",))}


class ChatTurn(NamedTuple):
    """Hold one turn before its images are named."""

    images: int
    """The number of the row's images in this turn, following those of earlier turns."""
    user: str
    assistant: str


@dataclass(frozen=True)
class Example:
    """Hold a parsed row, independent of its layout."""

    turns: Sequence[ChatTurn]
    system: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def parse_example(group: RowGroup, row: RawRow) -> Example:
    """Parse a row into turns, system prompt and metadata.

    Raises:
        ItemError: the row is malformed.
    """
    images = len(row_images(group, row))
    parsed = _PARSERS[group.layout](row, images)
    referenced = sum(turn.images for turn in parsed.turns)
    if referenced != images:
        raise ItemError("image-count", f"its turns refer to {referenced} images, but the row has {images}")
    return parsed


def _parse_texts(row: RawRow, images: int) -> Example:
    """Parse a row of The Cauldron: each text is a turn, and the first turn has all images."""
    texts = _require_list(row["texts"], "texts")
    turns = [
        ChatTurn(0 if k else images, _require_text(text, "user"), _require_text(text, "assistant"))
        for k, text in enumerate(_require_structs(texts, "texts"))
    ]
    sources = list(dict.fromkeys(text["source"] for text in texts if isinstance(text.get("source"), str)))
    return Example(turns, metadata={"source": sources[0] if len(sources) == 1 else sources} if sources else {})


def _parse_messages(row: RawRow, images: int) -> Example:
    """Parse a chat: an optional system message, then user and assistant messages in turn.

    Images that no message refers to belong to the first turn.
    """
    messages = list(_require_structs(_require_list(row["messages"], "messages"), "messages"))
    system = None
    if messages[0].get("role") == "system":
        system = _message_text(messages.pop(0))
    roles = [message.get("role") for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise ItemError("malformed-row", f"its roles are {_format_roles(roles)}, not user and assistant in turn")
    questions = [_parse_user_message(message) for message in messages[::2]]
    if not any(count for count, _ in questions):
        questions[0] = (images, questions[0][1])
    answers = [_message_text(message) for message in messages[1::2]]
    turns = [ChatTurn(count, user, answer) for (count, user), answer in zip(questions, answers, strict=True)]
    return Example(turns, system)


def _parse_user_message(message: RawRow) -> tuple[int, str]:
    """Return the number of images and the text of a user message.

    Markers are added to the text only if some images do not come before it.
    """
    content = message.get("content")
    if not isinstance(content, list):
        text = _require_text(message, "content")
        return text.count(IMAGE_MARKER), text
    parts = [None if part.get("type") == "image" else _text_part(part) for part in _require_structs(content, "content")]
    parts = [part for part in parts if part != ""]
    count = parts.count(None)
    marker = IMAGE_MARKER if None in parts[count:] else ""
    return count, "".join(marker if part is None else part for part in parts)


def _message_text(message: RawRow) -> str:
    """Return the text of a message without images."""
    content = message.get("content")
    if not isinstance(content, list):
        return _require_text(message, "content")
    return "".join(_text_part(part) for part in _require_structs(content, "content"))


def _text_part(part: RawRow) -> str:
    if part.get("type") != "text":
        raise ItemError(
            "malformed-row", f"a message has a part of the type {part.get('type')!r} that is not allowed there"
        )
    return _require_text(part, "text")


_PARSERS: Mapping[str, Callable[[RawRow, int], Example]] = {"texts": _parse_texts, "messages": _parse_messages}


def _require_list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ItemError("malformed-row", f"{name} is not a non-empty list")
    return value


def _require_structs(values: Iterable[Any], name: str) -> Iterator[RawRow]:
    for value in values:
        if not isinstance(value, dict):
            raise ItemError("malformed-row", f"an entry of {name} is not a struct")
        yield value


def _require_text(struct: RawRow, name: str) -> str:
    value = struct.get(name)
    if not isinstance(value, str):
        raise ItemError("malformed-row", f"{name} is missing or not text")
    return value


def _format_roles(roles: Sequence[Any]) -> str:
    text = ", ".join(map(str, roles[:6]))
    return f"{text}, ..." if len(roles) > 6 else text or "none"

"""What a row of a Parquet file says, in the layouts of conversations that are common on the hub.

Layouts, told by the columns beside that of the images:
    texts       The Cauldron: structs of user, assistant, source; all images come first
    messages    chat: role and content, which is text or a list of parts (type image or text)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from convkit.converters.parquet import Layout, RawRow, RowGroup, images_of
from convkit.errors import ItemError
from convkit.schema import IMAGE_MARKER

LAYOUTS = {"texts": Layout(("texts",)), "messages": Layout(("messages",))}


class Spoken(NamedTuple):
    """A turn, before its images have names."""

    images: int
    """How many of the row's images it shows, after those of the turns before."""
    user: str
    assistant: str


@dataclass(frozen=True)
class Example:
    """What a row says, whatever its layout."""

    turns: Sequence[Spoken]
    system: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def example(group: RowGroup, row: RawRow) -> Example:
    """What a row says.

    Raises:
        ItemError: it is malformed.
    """
    images = len(images_of(group, row))
    said = _READ[group.layout](row, images)
    shown = sum(turn.images for turn in said.turns)
    if shown != images:
        raise ItemError("image-count", f"its turns show {shown} images, and the row has {images}")
    return said


def _texts(row: RawRow, images: int) -> Example:
    """The Cauldron: each text is a turn, and the first one shows all images."""
    texts = _list(row["texts"], "texts")
    turns = [
        Spoken(0 if k else images, _text(text, "user"), _text(text, "assistant"))
        for k, text in enumerate(_structs(texts, "texts"))
    ]
    sources = list(dict.fromkeys(text["source"] for text in texts if isinstance(text.get("source"), str)))
    return Example(turns, metadata={"source": sources[0] if len(sources) == 1 else sources} if sources else {})


def _messages(row: RawRow, images: int) -> Example:
    """Chat: an optional system message, then user and assistant in turn.

    Images that no message names belong to the first turn.
    """
    messages = list(_structs(_list(row["messages"], "messages"), "messages"))
    system = None
    if messages[0].get("role") == "system":
        system = _words(messages.pop(0))
    roles = [message.get("role") for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise ItemError("malformed-row", f"its roles are {_shown(roles)}, not user and assistant in turn")
    named = [_user(message) for message in messages[::2]]
    if not any(count for count, _ in named):
        named[0] = (images, named[0][1])
    answers = [_words(message) for message in messages[1::2]]
    turns = [Spoken(count, user, answer) for (count, user), answer in zip(named, answers, strict=True)]
    return Example(turns, system)


def _user(message: RawRow) -> tuple[int, str]:
    """How many images a user's message shows, and its text.

    Markers stand in the text only where the images do not all come before it.
    """
    content = message.get("content")
    if not isinstance(content, list):
        text = _text(message, "content")
        return text.count(IMAGE_MARKER), text
    parts = [None if part.get("type") == "image" else _part(part) for part in _structs(content, "content")]
    parts = [part for part in parts if part != ""]
    count = parts.count(None)
    marker = IMAGE_MARKER if None in parts[count:] else ""
    return count, "".join(marker if part is None else part for part in parts)


def _words(message: RawRow) -> str:
    """The text of a message that shows no images."""
    content = message.get("content")
    if not isinstance(content, list):
        return _text(message, "content")
    return "".join(_part(part) for part in _structs(content, "content"))


def _part(part: RawRow) -> str:
    if part.get("type") != "text":
        raise ItemError("malformed-row", f"a message has a part of the type {part.get('type')!r} that cannot be there")
    return _text(part, "text")


_READ: Mapping[str, Callable[[RawRow, int], Example]] = {"texts": _texts, "messages": _messages}


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ItemError("malformed-row", f"{name} is not a list of one entry or more")
    return value


def _structs(values: Iterable[Any], name: str) -> Iterator[RawRow]:
    for value in values:
        if not isinstance(value, dict):
            raise ItemError("malformed-row", f"an entry of {name} is not a struct")
        yield value


def _text(struct: RawRow, name: str) -> str:
    value = struct.get(name)
    if not isinstance(value, str):
        raise ItemError("malformed-row", f"{name} is missing or not text")
    return value


def _shown(roles: Sequence[Any]) -> str:
    shown = ", ".join(map(str, roles[:6]))
    return f"{shown}, ..." if len(roles) > 6 else shown or "none"

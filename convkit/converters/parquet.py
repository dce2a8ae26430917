"""Parquet files of conversations: read row by row in bounded memory, in the layouts that are common on the hub.

Layouts, told by the columns (images are structs of `bytes` and `path`, one or a list of them):
    images, texts               The Cauldron: texts are structs of user, assistant, source; all images come first
    images, messages            chat: role and content, which is text or a list of parts (type image or text)
    image, query, answers       DocVQA on the hub: a question in several languages and all accepted answers
The column of images may be called image or images in all of them.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from convkit.converters.base import Item
from convkit.errors import ItemError, MissingExtra, SourceError
from convkit.files import printable
from convkit.schema import IMAGE_MARKER

SUFFIX = ".parquet"
BATCH_ROWS = 16
"""Rows that are decoded at a time: what bounds the memory, since a row may hold megabytes of images."""
BUFFER_BYTES = 1 << 20
"""Read at a time of each column, which would else be read whole for a row group."""

Image = bytes | Path
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowGroup(Item):
    """A row group of a file, or its first rows: the smallest part that is read without its neighbours."""

    file: str
    """Relative to the source, with slashes."""
    size: int
    """Bytes of the file."""
    index: int
    first: int
    """The number of its first row in the file."""
    rows: int
    layout: str
    images: str
    """The name of the column of images."""

    @property
    def units(self) -> int:
        """Its rows."""
        return self.rows


class Spoken(NamedTuple):
    """A turn, before its images have names."""

    images: int
    """How many of the row's images it shows, after those of the turns before."""
    user: str
    assistant: str
    answers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Example:
    """What a row says, whatever its layout."""

    turns: Sequence[Spoken]
    system: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def files(root: Path) -> list[str]:
    """The Parquet files below a folder, as relative paths in a fixed order; hidden ones belong to some tool.

    Raises:
        SourceError: a name is not UTF-8, as rows and image paths must be.
    """
    paths = [path.relative_to(root) for path in root.rglob(f"*{SUFFIX}") if path.is_file()]
    found = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    for file in found:
        if (shown := printable(file)) != file:
            raise SourceError(f"The name of the file {shown} in {root} is not UTF-8. Rename it.")
    return found


def row_groups(root: Path, file: str) -> list[RowGroup]:
    """The row groups of a file that are not empty, in order.

    Raises:
        SourceError: it is no sound Parquet file, or has none of the known layouts.
        MissingExtra: pyarrow is not installed.
    """
    path = root / file
    try:
        with _open(path) as parquet:
            layout, images = _layout_of(path, parquet.schema_arrow.names)
            counts = [parquet.metadata.row_group(k).num_rows for k in range(parquet.metadata.num_row_groups)]
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        reason = " ".join(str(error).split())
        raise SourceError(f"{path} is no sound Parquet file: {reason} Download it again.") from error
    firsts = accumulate(counts[:-1], initial=0)
    size = path.stat().st_size
    return [
        RowGroup(f"{file}#{k}", file, size, k, first, count, layout, images)
        for k, (first, count) in enumerate(zip(firsts, counts, strict=False))
        if count
    ]


def rows(root: Path, group: RowGroup) -> Iterator[tuple[int, Row | ItemError]]:
    """The rows of a group with their numbers in the file, or why one cannot be read.

    Raises:
        ItemError: the file is damaged, so that neither this row nor those behind it can be read.
    """
    number = group.first
    layout = LAYOUTS[group.layout]
    columns = [group.images, *layout.columns, *layout.optional]
    try:
        with _open(root / group.file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group.index], columns=columns, use_threads=False):
                for index in range(min(batch.num_rows, group.first + group.rows - number)):
                    yield number, _row(batch, index)
                    number += 1
                if number == group.first + group.rows:
                    return
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ItemError("damaged-parquet", f"the file is damaged at row {number} or behind it: {reason}") from error


def example(group: RowGroup, row: Row) -> tuple[Example, list[Any]]:
    """What a row says, and its images as the file has them.

    Raises:
        ItemError: it is malformed.
    """
    images = row[group.images]
    images = [] if images is None else images if isinstance(images, list) else [images]
    said = LAYOUTS[group.layout].read(row, len(images))
    shown = sum(turn.images for turn in said.turns)
    if shown != len(images):
        raise ItemError("image-count", f"its turns show {shown} images, and the row has {len(images)}")
    return said, images


def image(root: Path, number: int, value: Any) -> Image:
    """The bytes of an image, or its file, which must lie below `root`.

    Raises:
        ItemError: there is neither, or the path leads elsewhere.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if isinstance(content, bytes):
        return content
    if not isinstance(path, str) or not path:
        raise ItemError("missing-image", f"image {number} has neither bytes nor a path")
    if PurePosixPath(path).is_absolute() or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise ItemError("unsafe-path", f"image {number} has no bytes, and its path is not below the source: {path!r}")
    found = Path(os.path.realpath(root / path))
    if not found.is_relative_to(os.path.realpath(root)):
        raise ItemError("unsafe-path", f"image {number} has no bytes, and its path is a link out of the source: {path}")
    if not found.is_file():
        raise ItemError("missing-image", f"image {number} has no bytes, and {path} is not in the source")
    return found


def _open(path: Path) -> Any:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", f"Reading {path.name}") from error
    return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)


def _row(batch: Any, index: int) -> Row | ItemError:
    """One row as Python objects; text is first checked here, and one bad row must not cost the batch."""
    try:
        row: Row = batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return ItemError("not-utf8", "its text is not UTF-8")
    return row


def _layout_of(path: Path, found: Sequence[str]) -> tuple[str, str]:
    """The layout's name, and the name of the column of images."""
    images = next((name for name in ("images", "image") if name in found), None)
    layout = next((name for name, layout in LAYOUTS.items() if set(layout.columns) <= set(found)), None)
    if images is None or layout is None:
        known = "; ".join(f"images, {', '.join(layout.columns)}" for layout in LAYOUTS.values())
        raise SourceError(
            f"{path} has none of the layouts that convkit knows. Looked for the columns: {known}. "
            f"Found: {', '.join(found) or 'none'}. Rename the columns, or pass other files to --source."
        )
    return layout, images


def _texts(row: Row, images: int) -> Example:
    """The Cauldron: each text is a turn, and the first one shows all images."""
    texts = _list(row["texts"], "texts")
    turns = [
        Spoken(0 if k else images, _text(text, "user"), _text(text, "assistant"))
        for k, text in enumerate(_structs(texts, "texts"))
    ]
    sources = list(dict.fromkeys(text["source"] for text in texts if isinstance(text.get("source"), str)))
    return Example(turns, metadata={"source": sources[0] if len(sources) == 1 else sources} if sources else {})


def _messages(row: Row, images: int) -> Example:
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


def _user(message: Row) -> tuple[int, str]:
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


def _words(message: Row) -> str:
    """The text of a message that shows no images."""
    content = message.get("content")
    if not isinstance(content, list):
        return _text(message, "content")
    return "".join(_part(part) for part in _structs(content, "content"))


def _part(part: Row) -> str:
    if part.get("type") != "text":
        raise ItemError("malformed-row", f"a message has a part of the type {part.get('type')!r} that cannot be there")
    return _text(part, "text")


def _docvqa(row: Row, images: int) -> Example:
    """A question in English, and the answer that most gave."""
    query, answers = row["query"], row["answers"]
    if not images:
        raise ItemError("missing-image", "the row has no image")
    if not isinstance(query, dict):
        raise ItemError("malformed-row", "query is not a struct of languages")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise ItemError("malformed-row", "answers is not a list of one text or more")
    ((best, _),) = Counter(answers).most_common(1)
    turn = Spoken(images, f"{_text(query, 'en')}\nAnswer briefly.", best, tuple(answers))
    return Example([turn], metadata={"id": row["id"]} if isinstance(row.get("id"), str) else {})


class Layout(NamedTuple):
    """The columns that a layout is told by beside the images, others that are read if there, and how a row is read."""

    columns: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row, int], Example]


LAYOUTS = {
    "texts": Layout(("texts",), (), _texts),
    "messages": Layout(("messages",), (), _messages),
    "docvqa": Layout(("query", "answers"), ("id",), _docvqa),
}


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ItemError("malformed-row", f"{name} is not a list of one entry or more")
    return value


def _structs(values: Iterable[Any], name: str) -> Iterator[Row]:
    for value in values:
        if not isinstance(value, dict):
            raise ItemError("malformed-row", f"an entry of {name} is not a struct")
        yield value


def _text(struct: Row, name: str) -> str:
    value = struct.get(name)
    if not isinstance(value, str):
        raise ItemError("malformed-row", f"{name} is missing or not text")
    return value


def _shown(roles: Sequence[Any]) -> str:
    shown = ", ".join(map(str, roles[:6]))
    return f"{shown}, ..." if len(roles) > 6 else shown or "none"

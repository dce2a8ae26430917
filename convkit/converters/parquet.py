"""Read Parquet files with images row by row, in bounded memory.

Images are structs of `bytes` and `path`, either of which may be null. The column `image` or `images` holds one or a
list of them. File names give the split as on the Hub (`train-00000-of-00002.parquet`, `test-…`, `validation-…`); any
other name means train.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from convkit.converters.base import Item
from convkit.errors import ItemError, MissingExtra, SourceError
from convkit.utils.files import display_path

SUFFIX = ".parquet"
BATCH_ROWS = 16
"""Rows decoded at a time. This bounds memory, since a row may hold megabytes of images."""
BUFFER_BYTES = 1 << 20
"""Bytes read at a time per column; without a buffer size, whole row groups are read."""

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""The split by the first word of a file name."""
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")

ImageSource = bytes | Path
RawRow = Mapping[str, Any]


class Layout(NamedTuple):
    """The columns that identify a layout, besides the images, and optional columns that are read if present."""

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowGroup(Item):
    """Describe a row group of a file, or its first rows: the smallest unit that can be read alone."""

    file: str
    """The path relative to the source, with slashes."""
    size: int
    """The file size in bytes."""
    index: int
    first: int
    """The number of its first row in the file."""
    rows: int
    layout: str
    images: str
    """The name of the image column."""
    columns: tuple[str, ...]
    """The names of all columns to read."""
    several: bool
    """True if any row has more than one image."""

    @property
    def units(self) -> int:
        """Return the number of rows."""
        return self.rows


def split_prefix(file: str) -> str | None:
    """Return the split given by the first word of a file name, or None."""
    return SPLITS.get(re.split(r"[-_.]", Path(file).name)[0])


def split_name(file: str) -> str:
    """Return the split given by a file name; `test_seen-00000-of-00001` is the split `test_seen`."""
    shard = _SHARD.match(Path(file).name)
    split = split_prefix(file)
    if split and shard:
        return SPLITS.get(shard[1], shard[1])
    return split or "train"


def source_folder(root: Path) -> Path:
    """Return the folder that paths are relative to; the source may be a single file."""
    return root.parent if root.is_file() else root


def list_files(root: Path) -> list[str]:
    """Return the visible Parquet files below a folder, or the single file, as sorted relative paths.

    Raises:
        SourceError: a name is not UTF-8, as rows and image paths must be.
    """
    if root.is_file():
        return [root.name] if root.suffix.lower() == SUFFIX else []
    paths = [path.relative_to(root) for path in root.rglob(f"*{SUFFIX}") if path.is_file()]
    found = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    for file in found:
        if (escaped := display_path(file)) != file:
            raise SourceError(f"The name of the file {escaped} in {root} is not UTF-8. Rename it.")
    return found


def row_groups(root: Path, file: str, layouts: Mapping[str, Layout]) -> list[RowGroup]:
    """Return the non-empty row groups of a file in order, reading only its metadata.

    Args:
        layouts: the known layouts by name; the first whose columns are present is used.

    Raises:
        SourceError: the file is damaged, or has none of the known layouts.
        MissingExtra: pyarrow is not installed.
    """
    path = source_folder(root) / file
    try:
        with _open(path) as parquet:
            layout, images, columns = _detect_layout(path, parquet.schema_arrow.names, layouts)
            found = [parquet.metadata.row_group(k) for k in range(parquet.metadata.num_row_groups)]
            counts = [(group.num_rows, _has_several(group, images)) for group in found]
    except (OSError, ValueError) as error:  # the base classes of pyarrow's errors
        reason = " ".join(str(error).split())
        raise SourceError(f"{path} is not a valid Parquet file: {reason} Download it again.") from error
    firsts = accumulate((count for count, _ in counts), initial=0)
    size = path.stat().st_size
    return [
        RowGroup(f"{file}#{k}", file, size, k, first, count, layout, images, columns, several)
        for k, (first, (count, several)) in enumerate(zip(firsts, counts, strict=False))
        if count
    ]


def read_rows(root: Path, group: RowGroup, columns: Sequence[str] = ()) -> Iterator[tuple[int, RawRow | ItemError]]:
    """Yield the rows of a group with their numbers in the file, or the error of a row that cannot be read.

    Args:
        columns: the columns to read; empty: all columns of the layout.

    Raises:
        ItemError: the file is damaged, so this row and all later ones cannot be read.
    """
    number = group.first
    wanted = list(columns or group.columns)
    try:
        with _open(source_folder(root) / group.file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group.index], columns=wanted, use_threads=False):
                for row in _to_python(batch.slice(0, group.first + group.rows - number)):
                    yield number, row
                    number += 1
                if number == group.first + group.rows:
                    return
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ItemError("damaged-parquet", f"the file is damaged at row {number} or behind it: {reason}") from error


def row_images(group: RowGroup, row: RawRow) -> list[Any]:
    """Return the images of a row as stored in the file."""
    images = row[group.images]
    return [] if images is None else images if isinstance(images, list) else [images]


def resolve_image(root: Path, number: int, value: Any) -> ImageSource:
    """Return the bytes of an image, or its file, which must lie below the source folder.

    Args:
        number: the image's position in the row, for messages.
        value: the value in the row.

    Raises:
        ItemError: the image has neither bytes nor a path, or the path leads out of the source.
    """
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, None)
    if isinstance(content, bytes):
        return content
    if not isinstance(path, str) or not path:
        raise ItemError("missing-image", f"image {number} has neither bytes nor a path")
    if PurePosixPath(path).is_absolute() or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise ItemError("unsafe-path", f"image {number} has no bytes, and its path is not below the source: {path!r}")
    root = source_folder(root)
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


def _to_python(batch: Any) -> Sequence[RawRow | ItemError]:
    """Convert a batch to Python objects. Text is validated only here, so a bad row is isolated from the others."""
    try:
        found: list[RawRow] = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [ItemError("not-utf8", "its text is not UTF-8")]
        return [row for index in range(batch.num_rows) for row in _to_python(batch.slice(index, 1))]
    return found


def _detect_layout(path: Path, found: Sequence[str], layouts: Mapping[str, Layout]) -> tuple[str, str, tuple[str, ...]]:
    """Return the layout's name, the name of the image column, and the names of all columns to read."""
    images = next((name for name in ("images", "image") if name in found), None)
    name = next((name for name, layout in layouts.items() if set(layout.columns) <= set(found)), None)
    if images is None or name is None:
        known = "; ".join(f"images, {', '.join(layout.columns)}" for layout in layouts.values())
        raise SourceError(
            f"{path} has no supported layout. Looked for the columns: {known}. "
            f"Found: {', '.join(found) or 'none'}. Rename the columns, or pass other files to --source."
        )
    optional = tuple(column for column in layouts[name].optional if column in found)
    return name, images, (images, *layouts[name].columns, *optional)


def _has_several(group: Any, images: str) -> bool:
    """Return True if a row may have more than one image; an empty or null list counts as one value, too."""
    columns = (group.column(k) for k in range(group.num_columns))
    return any(c.num_values > group.num_rows for c in columns if c.path_in_schema.split(".")[0] == images)

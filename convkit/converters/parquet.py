"""Parquet files with images: read row by row in bounded memory.

Images are structs of `bytes` and `path`, of which either may be null, one or a list of them in the column `image` or
`images`. Files are named by split as on the hub (`train-00000-of-00002.parquet`, `test-…`, `validation-…`); any other
name means train.
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
"""Rows that are decoded at a time: what bounds the memory, since a row may hold megabytes of images."""
BUFFER_BYTES = 1 << 20
"""Read at a time of each column, which would else be read whole for a row group."""

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""By the first word of a file's name."""
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")

Image = bytes | Path
RawRow = Mapping[str, Any]


class Layout(NamedTuple):
    """The columns that a layout is told by beside the images, and others that are read if they are there."""

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()


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
    columns: tuple[str, ...]
    """All that is read."""
    several: bool
    """Whether any row of it has more than one image."""

    @property
    def units(self) -> int:
        """Its rows."""
        return self.rows


def split_word(file: str) -> str | None:
    """The kind of split, by the first word of a file's name; None if it tells of none."""
    return SPLITS.get(re.split(r"[-_.]", Path(file).name)[0])


def split_of(file: str) -> str:
    """The split that a file's name tells of; `test_seen-00000-of-00001` is a split of that name."""
    shard = _SHARD.match(Path(file).name)
    split = split_word(file)
    if split and shard:
        return SPLITS.get(shard[1], shard[1])
    return split or "train"


def folder_of(root: Path) -> Path:
    """The folder that paths are relative to: a source may be one file."""
    return root.parent if root.is_file() else root


def files(root: Path) -> list[str]:
    """The Parquet files below a folder, or the one file; by relative path, in order. Hidden ones belong to some tool.

    Raises:
        SourceError: a name is not UTF-8, as rows and image paths must be.
    """
    if root.is_file():
        return [root.name] if root.suffix.lower() == SUFFIX else []
    paths = [path.relative_to(root) for path in root.rglob(f"*{SUFFIX}") if path.is_file()]
    found = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    for file in found:
        if (shown := display_path(file)) != file:
            raise SourceError(f"The name of the file {shown} in {root} is not UTF-8. Rename it.")
    return found


def row_groups(root: Path, file: str, layouts: Mapping[str, Layout]) -> list[RowGroup]:
    """The row groups of a file that are not empty, in order; of its content, only the metadata are read.

    Args:
        layouts: those that are known, by name; the first whose columns are there is that of the file.

    Raises:
        SourceError: it is no sound Parquet file, or has none of the known layouts.
        MissingExtra: pyarrow is not installed.
    """
    path = folder_of(root) / file
    try:
        with _open(path) as parquet:
            layout, images, columns = _layout_of(path, parquet.schema_arrow.names, layouts)
            found = [parquet.metadata.row_group(k) for k in range(parquet.metadata.num_row_groups)]
            counts = [(group.num_rows, _has_several(group, images)) for group in found]
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        reason = " ".join(str(error).split())
        raise SourceError(f"{path} is no sound Parquet file: {reason} Download it again.") from error
    firsts = accumulate((count for count, _ in counts), initial=0)
    size = path.stat().st_size
    return [
        RowGroup(f"{file}#{k}", file, size, k, first, count, layout, images, columns, several)
        for k, (first, (count, several)) in enumerate(zip(firsts, counts, strict=False))
        if count
    ]


def rows(root: Path, group: RowGroup, columns: Sequence[str] = ()) -> Iterator[tuple[int, RawRow | ItemError]]:
    """The rows of a group with their numbers in the file, or why one cannot be read.

    Args:
        columns: only these; none named means all that the layout knows.

    Raises:
        ItemError: the file is damaged, so that neither this row nor those behind it can be read.
    """
    number = group.first
    wanted = list(columns or group.columns)
    try:
        with _open(folder_of(root) / group.file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group.index], columns=wanted, use_threads=False):
                for row in _rows(batch.slice(0, group.first + group.rows - number)):
                    yield number, row
                    number += 1
                if number == group.first + group.rows:
                    return
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ItemError("damaged-parquet", f"the file is damaged at row {number} or behind it: {reason}") from error


def images_of(group: RowGroup, row: RawRow) -> list[Any]:
    """The images of a row, as the file has them."""
    images = row[group.images]
    return [] if images is None else images if isinstance(images, list) else [images]


def image(root: Path, number: int, value: Any) -> Image:
    """The bytes of an image, or its file, which must lie below the source's folder.

    Args:
        number: its place in the row, for messages.
        value: as the row has it.

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
    root = folder_of(root)
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


def _rows(batch: Any) -> Sequence[RawRow | ItemError]:
    """A batch as Python objects; text is first checked here, and one bad row must not cost the others."""
    try:
        found: list[RawRow] = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [ItemError("not-utf8", "its text is not UTF-8")]
        return [row for index in range(batch.num_rows) for row in _rows(batch.slice(index, 1))]
    return found


def _layout_of(path: Path, found: Sequence[str], layouts: Mapping[str, Layout]) -> tuple[str, str, tuple[str, ...]]:
    """The layout's name, the name of the column of images, and the names of all columns that are to be read."""
    images = next((name for name in ("images", "image") if name in found), None)
    name = next((name for name, layout in layouts.items() if set(layout.columns) <= set(found)), None)
    if images is None or name is None:
        known = "; ".join(f"images, {', '.join(layout.columns)}" for layout in layouts.values())
        raise SourceError(
            f"{path} has none of the layouts that are read here. Looked for the columns: {known}. "
            f"Found: {', '.join(found) or 'none'}. Rename the columns, or pass other files to --source."
        )
    optional = tuple(column for column in layouts[name].optional if column in found)
    return name, images, (images, *layouts[name].columns, *optional)


def _has_several(group: Any, images: str) -> bool:
    """Whether a row has more than one image: an empty list, or none, is counted as one value, too."""
    columns = (group.column(k) for k in range(group.num_columns))
    return any(c.num_values > group.num_rows for c in columns if c.path_in_schema.split(".")[0] == images)

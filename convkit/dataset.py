"""Read a dataset: the lines of a row file, or the rows of a dataset directory, as streams.

Independent of the rules: `convkit.validate` reads lines and reports all problems; everyone else reads rows and stops at
the first invalid one.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

from pydantic import ValidationError
from pydantic_core import from_json

from convkit import layout
from convkit.errors import ConvkitError, DatasetError, MissingExtra
from convkit.schema import FORMAT_VERSION, Manifest, Row
from convkit.utils.json_file import first_problem

MAX_LINE_BYTES = 16 * 2**20
MAX_EXPANSION = 1000
"""Maximum ratio of decompressed to compressed size. Rows expand tenfold, a decompression bomb a millionfold."""
_BLOCK_BYTES = 64 * 2**10
_ZSTD_BLOCK_BYTES = 1024
"""Bytes read at a time: each may decompress to 32 KiB."""
_MAX_WINDOW = 128 * 2**20
"""Maximum memory of a zstd file, the limit of the zstd command without --long."""


class Line(NamedTuple):
    """One line of a row file."""

    number: int
    """The line number, from 1."""
    raw: bytes
    """The line without its line feed; a carriage return stays, as JSON's white space. Empty if overlong."""
    overlong: bool


@contextmanager
def open_rows(path: Path) -> Iterator[BinaryIO]:
    """Open a row file, and decompress it if its suffix says so.

    Raises:
        OSError: the file cannot be read.
        ConvkitError: the file is not in the format of its suffix, damaged, or a decompression bomb.
        MissingExtra: the package zstandard is not installed.
    """
    if path.suffix not in layout.COMPRESSED:
        with path.open("rb", buffering=0) as file:
            yield cast(BinaryIO, file)
        return
    with path.open("rb") as file:
        parts = (_gunzipped if path.suffix == ".gz" else _unzstandard)(path, file)
        most = MAX_EXPANSION * max(path.stat().st_size, _BLOCK_BYTES)
        yield cast(BinaryIO, _Expanded(parts, most, path))


def _gunzipped(path: Path, file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as expanded:
        try:
            yield from iter(lambda: expanded.read(_BLOCK_BYTES), b"")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(path, error) from None


def _unzstandard(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Decompress all frames of a file. A stream reader would not report a truncated frame, nor read the next ones."""
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra("zstandard", "zstd", f"Reading {path.name}") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame: zstandard.ZstdDecompressionObj | None = None
    try:
        while raw := file.read(_ZSTD_BLOCK_BYTES):
            while raw:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(raw)
                raw, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from None
    if frame is not None:
        raise _damaged(path, "the last frame is truncated")


def _damaged(path: Path, error: object) -> ConvkitError:
    return ConvkitError(f"{path} cannot be decompressed: {error}. Copy the file again, or compress it again.")


class _Expanded(io.RawIOBase):
    """Decompressed parts as a stream that raises an error above a size limit."""

    def __init__(self, parts: Iterator[bytes], most: int, path: Path) -> None:
        self._parts, self._left, self._path = parts, most, path
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._count(len(part))
            self._rest = memoryview(part)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ConvkitError(
                f"{self._path} decompresses to more than {MAX_EXPANSION:,} times its size, which rows never do. "
                "Decompress it yourself if you trust it."
            )


def read_lines(
    path: Path, max_bytes: int = MAX_LINE_BYTES, on_block: Callable[[memoryview], object] | None = None
) -> Iterator[Line]:
    """Yield the lines of a file in constant memory, whatever their length.

    Args:
        max_bytes: longer lines are skipped, and yielded as an empty line marked overlong.
        on_block: called with each block of about 64 KiB as it is read, for a digest or a progress bar.

    Raises:
        OSError: the file cannot be read.
    """
    with open_rows(path) as opened, io.BufferedReader(_Observed(opened, on_block), _BLOCK_BYTES) as file:
        number = 0
        while raw := file.readline(max_bytes + 1):
            number += 1
            if raw.endswith(b"\n"):
                yield Line(number, raw[:-1], False)
            elif len(raw) <= max_bytes:
                yield Line(number, raw, False)
            else:
                _skip_line(file)
                yield Line(number, b"", True)


def _skip_line(file: BinaryIO) -> None:
    while (part := file.readline(_BLOCK_BYTES)) and not part.endswith(b"\n"):
        pass


class _Observed(io.RawIOBase):
    """A stream that passes every block to a callback, so that a digest needs no second read."""

    def __init__(self, stream: BinaryIO, on_block: Callable[[memoryview], object] | None) -> None:
        self._stream, self._on_block = stream, on_block

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        if self._on_block:
            self._on_block(memoryview(buffer)[:count])
        return count


class Dataset:
    """A dataset directory that has a manifest."""

    def __init__(self, directory: Path, manifest: Manifest, manifest_sha256: str) -> None:
        self.directory = directory
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a dataset directory by reading its manifest.

        Raises:
            DatasetError: the manifest is missing, cannot be read, or is not of this format version.
        """
        path = directory / layout.MANIFEST
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DatasetError(_no_manifest(directory)) from None
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            raise DatasetError(f"{path} {_not_a_manifest(content, error)}") from None
        return cls(directory, manifest, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        """The name of the dataset, from its manifest."""
        return self.manifest.name

    @property
    def images(self) -> Path:
        """The folder that image paths of rows are relative to."""
        return self.directory / layout.IMAGES

    @property
    def splits(self) -> "dict[str, SplitRows]":
        """The rows of each split, by its name."""
        return {name: self[name] for name in self.manifest.splits}

    def __getitem__(self, split: str) -> "SplitRows":
        """Return the rows of a split.

        Raises:
            DatasetError: there is no such split; the message lists the known ones.
        """
        self.path(split)
        return SplitRows(self, split)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows of all splits."""
        return (row for rows in self.splits.values() for row in rows)

    def __len__(self) -> int:
        """Return the number of rows, from the manifest."""
        return sum(split.rows for split in self.manifest.splits.values())

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {split.rows:,} rows" for name, split in self.manifest.splits.items())
        return f"<convkit.Dataset {self.name!r} in {str(self.directory)!r}: {splits}>"

    def path(self, split: str) -> Path:
        """Return the path of a split's row file.

        Raises:
            DatasetError: there is no such split; the message lists the known ones.
        """
        if split not in self.manifest.splits:
            known = ", ".join(self.manifest.splits) or "none"
            raise DatasetError(f"{self.directory} has no split {split!r}. Choose one of: {known}.")
        return self.directory / self.manifest.splits[split].file

    def rows(self, split: str) -> Iterator[tuple[str, Row]]:
        """Yield (file:line, row) for each row of a split, in order.

        Raises:
            DatasetError: there is no such split, its file cannot be read, or a row is invalid.
        """
        path = self.path(split)
        try:
            for line in read_lines(path):
                yield f"{path}:{line.number}", _row(path, line)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be read ({error.strerror}). Restore the file or convert the source again."
            ) from None


class SplitRows:
    """The rows of one split: iterable, with a length."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, in order.

        Raises:
            DatasetError: the row file cannot be read, or a row is invalid.
        """
        return (row for _, row in self.dataset.rows(self.name))

    def __len__(self) -> int:
        """Return the number of rows, from the manifest."""
        return self.dataset.manifest.splits[self.name].rows

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of split {self.name!r} in {str(self.dataset.directory)!r}>"


def _row(path: Path, line: Line) -> Row:
    try:
        return Row.model_validate_json(line.raw)
    except ValidationError as error:
        reason = f"the line is longer than {MAX_LINE_BYTES:,} bytes" if line.overlong else first_problem(error)
    raise DatasetError(
        f"{path}:{line.number} is not a valid row: {reason}. Run `convkit validate {path.parent}` to see all findings."
    )


def _no_manifest(directory: Path) -> str:
    if (directory / layout.WORK).is_dir():
        return f"The conversion into {directory} is not finished. Run the same convert command again to resume it."
    return f"{directory} has no {layout.MANIFEST}. Pass a dataset directory that convkit convert wrote."


def _not_a_manifest(content: bytes, error: ValidationError) -> str:
    version = _format_version(content)
    if isinstance(version, int) and version > FORMAT_VERSION:
        return f"is of format version {version}; this convkit reads version {FORMAT_VERSION}. Upgrade convkit-vlm."
    return f"is not a manifest: {first_problem(error)}. Restore the file or convert the source again."


def _format_version(content: bytes) -> Any:
    try:
        manifest = from_json(content)
    except ValueError:
        return None
    return manifest.get("format_version") if isinstance(manifest, dict) else None

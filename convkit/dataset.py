"""Reading a data set: the lines of a row file, and the rows of a dataset directory, streamed.

Knows nothing of rules: `convkit.validate` reads lines to find everything that is wrong with them, whoever uses a
data set reads rows and stops at the first one that is wrong.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from pydantic import ValidationError
from pydantic_core import from_json

from convkit import layout
from convkit.errors import DatasetError
from convkit.schema import FORMAT_VERSION, Conversation, Manifest

MAX_LINE_BYTES = 16 * 2**20
_BLOCK_BYTES = 64 * 2**10


class Line(NamedTuple):
    """One line of a row file."""

    number: int
    """Counted from 1."""
    raw: bytes
    """The line without its line feed (a carriage return stays: to JSON it is white space); empty if overlong."""
    overlong: bool


def read_lines(
    path: Path, max_bytes: int = MAX_LINE_BYTES, watch: Callable[[memoryview], object] | None = None
) -> Iterator[Line]:
    """Yield the lines of a file, in constant memory whatever their length.

    Args:
        max_bytes: longer lines are passed over, and come as an empty line marked overlong.
        watch: called with each block of about 64 KiB as it is read, for a digest or a progress bar.

    Raises:
        OSError: the file cannot be read.
    """
    raw_file = io.FileIO(path) if watch is None else _WatchedFile(path, watch)
    with io.BufferedReader(raw_file, _BLOCK_BYTES) as file:
        number = 0
        while raw := file.readline(max_bytes + 1):
            number += 1
            if raw.endswith(b"\n"):
                yield Line(number, raw[:-1], False)
            elif len(raw) <= max_bytes:
                yield Line(number, raw, False)
            else:
                _pass_over(file)
                yield Line(number, b"", True)


def _pass_over(file: BinaryIO) -> None:
    while (part := file.readline(_BLOCK_BYTES)) and not part.endswith(b"\n"):
        pass


class _WatchedFile(io.FileIO):
    """A file that shows every block to somebody while it is read, so that a digest costs no second reading."""

    def __init__(self, path: Path, watch: Callable[[memoryview], object]) -> None:
        super().__init__(path)
        self._watch = watch

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._watch(memoryview(buffer)[:count])
        return count


class Dataset:
    """A dataset directory that has a manifest."""

    def __init__(self, directory: Path, manifest: Manifest, manifest_sha256: str) -> None:
        self.directory = directory
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read the manifest.

        Raises:
            DatasetError: there is none, it cannot be read, or it is not a manifest of this format version.
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

    def path(self, split: str) -> Path:
        """The row file of a split.

        Raises:
            DatasetError: the data set has no such split; the message lists those it has.
        """
        if split not in self.manifest.splits:
            known = ", ".join(self.manifest.splits) or "none"
            raise DatasetError(f"{self.directory} has no split {split!r}. Choose one of: {known}.")
        return self.directory / self.manifest.splits[split].file

    def rows(self, split: str) -> Iterator[tuple[str, Conversation]]:
        """Yield (file:line, row) for each row of a split, in order.

        Raises:
            DatasetError: there is no such split, its file cannot be read, or a row is not sound.
        """
        path = self.path(split)
        try:
            for line in read_lines(path):
                yield f"{path}:{line.number}", _row(path, line)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be read ({error.strerror}). Restore the file or convert the source again."
            ) from None


def _row(path: Path, line: Line) -> Conversation:
    try:
        return Conversation.model_validate_json(line.raw)
    except ValidationError as error:
        reason = f"the line is longer than {MAX_LINE_BYTES:,} bytes" if line.overlong else _first(error)
    raise DatasetError(
        f"{path}:{line.number} is not a sound row: {reason}. Run `convkit validate {path.parent}` to see all findings."
    )


def _no_manifest(directory: Path) -> str:
    if (directory / layout.WORK).is_dir():
        return f"The conversion into {directory} is not finished. Run the same convert command again to finish it."
    return f"{directory} has no {layout.MANIFEST}. Give a directory that convkit convert has written."


def _not_a_manifest(content: bytes, error: ValidationError) -> str:
    version = _format_version(content)
    if isinstance(version, int) and version > FORMAT_VERSION:
        return f"is of format version {version}; this convkit reads version {FORMAT_VERSION}. Upgrade convkit-vlm."
    return f"is not a manifest: {_first(error)}. Restore the file or convert the source again."


def _format_version(content: bytes) -> Any:
    try:
        manifest = from_json(content)
    except ValueError:
        return None
    return manifest.get("format_version") if isinstance(manifest, dict) else None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]

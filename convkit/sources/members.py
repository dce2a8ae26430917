"""Check and write archive members, with one set of safety rules for all formats.

Archives are untrusted. A member is only ever written as a new regular file below the given folder. Limits apply to the
bytes that are read, not to the sizes that headers declare.
"""

import errno
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from convkit.errors import SourceError
from convkit.sources import RefusedMember

MAX_MEMBERS = 2_000_000
"""Maximum number of members of an archive."""
MAX_MEMBER_BYTES = 64 << 30
"""Maximum size of one member in bytes."""
MAX_TOTAL_BYTES = 4 << 30
"""Maximum size of all members in bytes, or `MAX_TOTAL_RATIO` times the archive's size if that is more."""
MAX_TOTAL_RATIO = 200
MAX_REFUSED = 100_000
"""Maximum number of refused members, since they are kept in memory and listed in the quarantine file."""

CHUNK = 1 << 20
FILE_MODE = 0o644

MANUAL_REMEDY = "unpack it by hand and pass the folder to --source"


class Readable(Protocol):
    """A stream that a member is read from."""

    def read(self, size: int, /) -> bytes: ...


class Extraction:
    """Extract one archive into a folder: check each member, write it, and count.

    Attributes:
        files: the number of files written.
        written: the number of bytes written.
        refused: the members that were not written although they may belong to the data.
    """

    def __init__(self, archive: Path, folder: Path, suffixes: frozenset[str]) -> None:
        self.archive = archive
        self.files = 0
        self.written = 0
        self.refused: list[RefusedMember] = []
        self._folder = folder
        self._suffixes = suffixes
        self._limit = max(MAX_TOTAL_BYTES, MAX_TOTAL_RATIO * archive.stat().st_size)
        self._members = 0

    def count_member(self) -> None:
        """Count a member of any kind.

        Raises:
            SourceError: there are too many.
        """
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise self._limit_error(f"has more than {MAX_MEMBERS:,} members")

    def accept(self, name: str, fault: str | None) -> PurePosixPath | None:
        """Return the path at which to write a member that is not a folder; None if it is refused or not wanted.

        Args:
            name: the member's name, undecodable bytes as surrogates.
            fault: why its type is unsafe; None for a regular file.
        """
        fault = fault or _unsafe_name(name)
        if fault is not None:
            self.refuse(name, "unsafe-member", fault)
            return None
        path = PurePosixPath(name)
        if _is_apple_double(path) or (self._suffixes and path.suffix.lower() not in self._suffixes):
            return None
        if not _is_utf8(name):
            self.refuse(name, "bad-name", "its name is not valid UTF-8")
            return None
        return path

    def refuse(self, name: str, rule: str, reason: str) -> None:
        """Record a member as refused.

        Raises:
            SourceError: there are too many.
        """
        self.refused.append(RefusedMember(f"{self.archive.name}:{escape_name(name)}", rule, reason))
        if len(self.refused) > MAX_REFUSED:
            raise self._limit_error(
                f"has more than {MAX_REFUSED:,} members that cannot be unpacked, the last because {reason},"
            )

    def write(self, path: PurePosixPath, content: Iterator[bytes]) -> None:
        """Write a member, or refuse it if its name is in use; in every format, the first of a name is kept.

        Raises:
            SourceError: a limit is exceeded.
        """
        try:
            file = _create(self._folder / path)
        except (FileExistsError, NotADirectoryError):
            self.refuse(str(path), "duplicate-name", "a member before it has the same name; that one is kept")
            return
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.refuse(str(path), "bad-name", "its name is longer than the file system allows")
            return
        with file:
            self._copy(path, content, file)
        self.files += 1

    def _copy(self, path: PurePosixPath, content: Iterator[bytes], file: IO[bytes]) -> None:
        size = 0
        for chunk in content:
            size += len(chunk)
            self.written += len(chunk)
            if size > MAX_MEMBER_BYTES:
                raise self._limit_error(
                    f"has a member of more than {MAX_MEMBER_BYTES:,} bytes, {escape_name(str(path))},"
                )
            if self.written > self._limit:
                raise self._limit_error(f"unpacks to more than {self._limit:,} bytes")
            file.write(chunk)

    def _limit_error(self, what: str) -> SourceError:
        return SourceError(
            f"The archive {self.archive} {what} and may be meant to fill the disk. If you trust it, {MANUAL_REMEDY}."
        )


def escape_name(name: str) -> str:
    """Escape undecodable bytes and unprintable characters of a name, for messages."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def read_chunks(stream: Readable, archive: Path, where: str) -> Iterator[bytes]:
    """Yield the content of a member in chunks of bounded size.

    Raises:
        SourceError: the archive is damaged there.
    """
    while True:
        with translate_errors(archive, where):
            chunk = stream.read(CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def translate_errors(archive: Path, where: str) -> Iterator[None]:
    """Translate the standard library's errors at damaged bytes into one clear error.

    Use it for reading only: an error while writing to the disk is not damage of the archive.
    """
    try:
        yield
    except NotImplementedError as error:
        raise SourceError(
            f"The archive {archive} cannot be unpacked {where}: {error}. Run: 7z x {archive.name}, "
            "and pass the folder to --source."
        ) from error
    except _DAMAGE_ERRORS as error:
        raise damaged_error(archive, where, error) from error
    except OSError as error:
        # The decompressors raise OSError without errno. EINVAL is the operating system's error for an invalid
        # offset; any other errno is an error of the disk.
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise damaged_error(archive, where, error) from error


def damaged_error(archive: Path, where: str, reason: object) -> SourceError:
    """Return the error for a damaged archive."""
    return SourceError(
        f"The archive {archive} is damaged {where}: {reason or 'invalid data'}. "
        "It may be truncated or corrupted: download it again, and compare its size with the original's."
    )


_DAMAGE_ERRORS = (
    EOFError,
    RecursionError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _create(path: Path) -> IO[bytes]:
    """Open a new file; its folders are created only if missing, which is rare among many members."""
    try:
        return open(path, "xb", opener=_open_new)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb", opener=_open_new)


def _open_new(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def _unsafe_name(name: str) -> str | None:
    """Return why a name is unsafe, such as leading out of the folder; None if it is safe."""
    if name.startswith("/"):
        return "its name is an absolute path"
    if ".." in name.split("/"):
        return "its name leads upwards (..)"
    if "\\" in name:
        return "its name has a backslash, which some systems take for a separator"
    if "\0" in name:
        return "its name has a NUL character"
    if not PurePosixPath(name).parts:
        return "it has no name"
    return None


def _is_apple_double(path: PurePosixPath) -> bool:
    """Return True for files in which macOS stores metadata beside a file."""
    return path.name.startswith("._") or "__MACOSX" in path.parts


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

"""What may leave an archive: one set of rules for the members of every format, and the writing of those that may.

Archives come from strangers. A member is only ever written as a new regular file below the given folder, and the
bytes that are counted against the limits are those that arrive, not those that a header declares.
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

MEMBERS = 2_000_000
"""The most members of an archive."""
MEMBER_BYTES = 64 << 30
"""The most bytes of one member."""
TOTAL_BYTES = 4 << 30
"""The most bytes of all members, or `TOTAL_RATIO` times the archive, whichever is more."""
TOTAL_RATIO = 200
REFUSED = 100_000
"""The most refused members, which are kept in memory and belong in a quarantine file that people read."""

CHUNK = 1 << 20
MODE = 0o644

BY_HAND = "unpack it by hand and pass the folder to --source"


class Readable(Protocol):
    """What a member is read from."""

    def read(self, size: int, /) -> bytes: ...


class Extraction:
    """One archive on its way into a folder: decides about each member, writes it, and keeps the count.

    Attributes:
        files: how many files were written.
        written: how many bytes they have.
        refused: the members that were not written although they may have belonged to the data.
    """

    def __init__(self, archive: Path, folder: Path, suffixes: frozenset[str]) -> None:
        self.archive = archive
        self.files = 0
        self.written = 0
        self.refused: list[RefusedMember] = []
        self._folder = folder
        self._suffixes = suffixes
        self._limit = max(TOTAL_BYTES, TOTAL_RATIO * archive.stat().st_size)
        self._members = 0

    def count(self) -> None:
        """Count a member, of whatever kind.

        Raises:
            SourceError: there are too many.
        """
        self._members += 1
        if self._members > MEMBERS:
            raise self._beyond(f"has more than {MEMBERS:,} members")

    def admit(self, name: str, fault: str | None) -> PurePosixPath | None:
        """Where a member that is no folder may be written; None when it is refused or not wanted.

        Args:
            name: its name, undecodable bytes as surrogates.
            fault: why its kind makes it unsafe; None for a regular file.
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
        """Put a member on record as refused.

        Raises:
            SourceError: there are too many.
        """
        self.refused.append(RefusedMember(f"{self.archive.name}:{shown(name)}", rule, reason))
        if len(self.refused) > REFUSED:
            raise self._beyond(f"has more than {REFUSED:,} members that cannot be unpacked, the last because {reason},")

    def write(self, path: PurePosixPath, content: Iterator[bytes]) -> None:
        """Write a member, or refuse it if its name is taken; the first of a name stays, whatever the format's custom.

        Raises:
            SourceError: a limit is passed.
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
            if size > MEMBER_BYTES:
                raise self._beyond(f"has a member of more than {MEMBER_BYTES:,} bytes, {shown(str(path))},")
            if self.written > self._limit:
                raise self._beyond(f"unpacks to more than {self._limit:,} bytes")
            file.write(chunk)

    def _beyond(self, what: str) -> SourceError:
        return SourceError(
            f"The archive {self.archive} {what} and may be meant to fill the disk. If you trust it, {BY_HAND}."
        )


def shown(name: str) -> str:
    """A name that is safe to print and to encode: undecodable bytes and unprintable characters are escaped."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def chunks(stream: Readable, archive: Path, where: str) -> Iterator[bytes]:
    """The content of a member, in pieces of bounded size.

    Raises:
        SourceError: the archive is damaged there.
    """
    while True:
        with reading(archive, where):
            chunk = stream.read(CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def reading(archive: Path, where: str) -> Iterator[None]:
    """Turn what the readers of the standard library raise at damaged bytes into one clear error.

    Only reading belongs inside: an error of the disk that is written to is no damage of the archive.
    """
    try:
        yield
    except NotImplementedError as error:
        raise SourceError(
            f"The archive {archive} cannot be unpacked {where}: {error}. Run: 7z x {archive.name}, "
            "and pass the folder to --source."
        ) from error
    except _DAMAGE as error:
        raise damaged(archive, where, error) from error
    except OSError as error:
        # The decompressors raise a bare OSError; the operating system's own carry a number, and EINVAL is what
        # it says to an offset that makes no sense.
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise damaged(archive, where, error) from error


def damaged(archive: Path, where: str, reason: object) -> SourceError:
    """The error for an archive whose bytes are not what they should be."""
    return SourceError(
        f"The archive {archive} is damaged {where}: {reason or 'its bytes make no sense'}. "
        "It may have been cut off or altered on the way: download it again, and compare its size with the original's."
    )


_DAMAGE = (
    EOFError,
    RecursionError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _create(path: Path) -> IO[bytes]:
    """A new file; its folders are made only when they turn out to be missing, which is rare among many members."""
    try:
        return open(path, "xb", opener=_open_new)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb", opener=_open_new)


def _open_new(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)


def _unsafe_name(name: str) -> str | None:
    """Why a name could lead out of the folder; None if it cannot."""
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
    """Whether macOS put it there beside a file, to keep what other systems have no place for."""
    return path.name.startswith("._") or "__MACOSX" in path.parts


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

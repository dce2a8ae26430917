"""Write files atomically: a reader sees the old file or the new one, never a part of it."""

import os
import shutil
import stat
from pathlib import Path


def display_path(path: str | os.PathLike[str]) -> str:
    """Return a path as printable text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


class AtomicFile:
    """A file that appears under its name only when it is committed, complete and synced to disk.

    Args:
        path: the final name.
        scratch: a folder on the same file system for the temporary file.
        mode: the permissions (default: those of a new file).
    """

    def __init__(self, path: Path, scratch: Path, mode: int | None = None) -> None:
        self.path = path
        self._temporary = scratch / f"{path.name}.{os.getpid()}"
        self._file = self._temporary.open("wb")
        if mode is not None:
            os.fchmod(self._file.fileno(), stat.S_IMODE(mode))

    def write(self, data: bytes) -> None:
        """Append data to the file."""
        self._file.write(data)

    def commit(self) -> None:
        """Sync the file and rename it into place."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Close the file; without `commit` it never appears."""
        self._file.close()


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Write a small file atomically and sync it."""
    file = AtomicFile(path, scratch)
    try:
        file.write(data)
        file.commit()
    finally:
        file.close()


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_or_link(path: str, content: bytes | Path) -> None:
    """Write or hard-link a new file without syncing it, and create its folder if it is missing.

    Args:
        path: a name in a scratch folder. An existing file is removed and never written into, since it may be a hard
            link to a file of the source.
        content: the bytes, or a file to hard-link; it is copied if the file system cannot link.
    """
    try:
        _write_new(path, content)
    except FileExistsError:
        os.unlink(path)
        _write_new(path, content)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write_new(path, content)


def _write_new(path: str, content: bytes | Path) -> None:
    if isinstance(content, Path):
        try:
            os.link(os.path.realpath(content), path)
        except FileExistsError:
            raise
        except OSError:  # another file system, or one without links
            shutil.copyfile(content, path)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def size_of(content: bytes | Path) -> int:
    """Return the size in bytes of a content for `write_or_link`."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def move(path: str, target: str) -> None:
    """Rename a file into place, and create its folder only if it is missing."""
    try:
        os.replace(path, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(path, target)

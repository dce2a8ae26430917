"""Writing files such that a reader sees the old one or the new one, never a part."""

import os
import shutil
import stat
from pathlib import Path


def display_path(path: str | os.PathLike[str]) -> str:
    """A path as text that can be written: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


class AtomicFile:
    """A file that appears under its name, whole and on disk, when it is committed.

    Args:
        path: the name.
        scratch: a folder of the same file system for the temporary name.
        mode: the permissions; those of any new file if not given.
    """

    def __init__(self, path: Path, scratch: Path, mode: int | None = None) -> None:
        self.path = path
        self._temporary = scratch / f"{path.name}.{os.getpid()}"
        self._file = self._temporary.open("wb")
        if mode is not None:
            os.fchmod(self._file.fileno(), stat.S_IMODE(mode))

    def write(self, data: bytes) -> None:
        """Add to the file."""
        self._file.write(data)

    def commit(self) -> None:
        """Sync the file and rename it into place."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Give the file up, unless it is committed."""
        self._file.close()


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Write a small file whole or not at all."""
    file = AtomicFile(path, scratch)
    try:
        file.write(data)
        file.commit()
    finally:
        file.close()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_or_link(path: str, content: bytes | Path) -> None:
    """Make a file without waiting for the disk (`os.sync` makes many durable at once), and its folder if need be.

    Args:
        path: a name in a scratch folder; what an earlier process left there is removed, never written into: it may
            be a link to a file of the source.
        content: its bytes, or a file to hard-link; copied where the file system cannot link.
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
    """Bytes of what `put` takes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def move(path: str, target: str) -> None:
    """Rename a file into place, making folders only where they turn out to be missing."""
    try:
        os.replace(path, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(path, target)

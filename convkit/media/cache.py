"""What was seen of image files, kept for the next run: a file whose status is unchanged is not read again.

Only an optimisation: a cache that is missing, locked, damaged or strange is a cache that knows nothing. It trusts
the kernel's change time, which, unlike the modification time, no program can set.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, get_type_hints

from convkit import __version__
from convkit.media.images import ImageInfo

MIN_FILE_AGE_NS = 2_000_000_000
"""A file that changed less than this ago may change again without a trace: clocks of file systems are coarse."""
_FORMAT = 1
_TYPES = tuple(get_type_hints(ImageInfo).values())


class FileStamp(NamedTuple):
    """What changes with the bytes of a file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        """Take it from the status of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def file_stamp(path: str) -> FileStamp | None:
    """The stamp of a regular file; None for links and all else, of which nothing is remembered."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return FileStamp.of(status) if stat.S_ISREG(status.st_mode) else None


class MediaCache:
    """Sound images by path. Whoever asks compares the stamp."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._new: list[tuple[object, ...]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = self._open()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=1, isolation_level=None)
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        tag = f"{_FORMAT} {__version__} {version('pillow')} {' '.join(ImageInfo._fields)}"
        database.execute("CREATE TABLE IF NOT EXISTS tag (tag TEXT)")
        if database.execute("SELECT tag FROM tag").fetchall() != [(tag,)]:
            # Another version saw other things, or saw them otherwise.
            database.executescript("BEGIN; DROP TABLE IF EXISTS image; DELETE FROM tag; COMMIT")
            database.execute("INSERT INTO tag VALUES (?)", (tag,))
        database.execute(
            "CREATE TABLE IF NOT EXISTS image (path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, "
            "seen TEXT) WITHOUT ROWID"
        )
        return database

    def get(self, paths: Sequence[str]) -> dict[str, tuple[FileStamp, ImageInfo]]:
        """What is known of some paths, at most 500."""
        if self._database is None:
            return {}
        marks = ",".join("?" * len(paths))
        query = f"SELECT path, size, mtime, ctime, inode, seen FROM image WHERE path IN ({marks})"
        try:
            rows = self._database.execute(query, paths).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            self._give_up(error)
            return {}
        images = ((path, FileStamp(*stamp), _image(seen)) for path, *stamp, seen in rows)
        return {path: (stamp, image) for path, stamp, image in images if image is not None}

    def put(self, path: str, stamp: FileStamp, image: ImageInfo) -> None:
        """Keep what was seen of a file that had this stamp before it was opened."""
        if time.time_ns() - max(stamp.ctime_ns, stamp.mtime_ns) < MIN_FILE_AGE_NS:
            return
        self._new.append((path, *stamp, json.dumps(image)))
        if len(self._new) >= 1000:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        new, self._new = self._new, []
        if self._database is None or not new:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)", new)
            self._database.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Write what is new, and let go."""
        self.save()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: Exception) -> None:
        """Do without; a file that is no sound database is removed, so that the next run has one."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        for path in _files(self._path) if damaged else ():
            with suppress(OSError):
                path.unlink()


def _files(path: Path) -> Iterable[Path]:
    return (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))


def _image(seen: object) -> ImageInfo | None:
    try:
        values = json.loads(str(seen))
    except ValueError:
        return None
    if not isinstance(values, list) or len(values) != len(_TYPES):
        return None
    fits = all(isinstance(value, kind) for value, kind in zip(values, _TYPES, strict=True))
    return ImageInfo(*values) if fits else None

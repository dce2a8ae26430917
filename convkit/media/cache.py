"""Cache the properties of image files between runs, so that unchanged files are not read again.

The cache is only an optimization: if it is missing, locked or damaged, it is treated as empty. It relies on the
kernel's change time (ctime), which, unlike the modification time, no program can set.
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
"""Minimum age of a cached file. A file changed more recently may change again within the clock's resolution."""
_FORMAT = 1
_TYPES = tuple(get_type_hints(ImageInfo).values())


class FileStamp(NamedTuple):
    """File status fields that change with the file's bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def from_stat(cls, status: os.stat_result) -> "FileStamp":
        """Make a stamp from the status of a file."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def file_stamp(path: str) -> FileStamp | None:
    """Return the stamp of a regular file; None for links and everything else, which is not cached."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return FileStamp.from_stat(status) if stat.S_ISREG(status.st_mode) else None


class MediaCache:
    """Cache the properties of valid images by path; the caller compares the stamps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._new: list[tuple[object, ...]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = self._open()
        except (sqlite3.Error, OSError) as error:
            self._disable(error)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=1, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def _prepare(database: sqlite3.Connection) -> None:
        """Create the tables, and clear those of another version."""
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        tag = f"{_FORMAT} {__version__} {version('pillow')} {' '.join(ImageInfo._fields)}"
        database.execute("CREATE TABLE IF NOT EXISTS tag (tag TEXT)")
        if database.execute("SELECT tag FROM tag").fetchall() != [(tag,)]:
            # Written by another version, whose properties may differ.
            database.executescript("BEGIN; DROP TABLE IF EXISTS image; DELETE FROM tag; COMMIT")
            database.execute("INSERT INTO tag VALUES (?)", (tag,))
        database.execute(
            "CREATE TABLE IF NOT EXISTS image (path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, "
            "seen TEXT) WITHOUT ROWID"
        )

    def get(self, paths: Sequence[str]) -> dict[str, tuple[FileStamp, ImageInfo]]:
        """Return the cached entries of at most 500 paths."""
        if self._database is None:
            return {}
        marks = ",".join("?" * len(paths))
        query = f"SELECT path, size, mtime, ctime, inode, seen FROM image WHERE path IN ({marks})"
        try:
            rows = self._database.execute(query, paths).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            self._disable(error)
            return {}
        images = ((path, FileStamp(*stamp), _parse_image_info(seen)) for path, *stamp, seen in rows)
        return {path: (stamp, image) for path, stamp, image in images if image is not None}

    def put(self, path: str, stamp: FileStamp, image: ImageInfo) -> None:
        """Cache the properties of a file; the stamp must be from before the file was opened."""
        if time.time_ns() - max(stamp.ctime_ns, stamp.mtime_ns) < MIN_FILE_AGE_NS:
            return
        self._new.append((path, *stamp, json.dumps(image)))
        if len(self._new) >= 1000:
            self.save()

    def save(self) -> None:
        """Write new entries to the database."""
        new, self._new = self._new, []
        if self._database is None or not new:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, ?)", new)
            self._database.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            self._disable(error)

    def close(self) -> None:
        """Write new entries and close the database."""
        self.save()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _disable(self, error: Exception) -> None:
        """Continue without the cache; a damaged database is deleted, so that the next run creates a new one."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        for path in _database_files(self._path) if damaged else ():
            with suppress(OSError):
                path.unlink()


def _database_files(path: Path) -> Iterable[Path]:
    return (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))


def _parse_image_info(seen: object) -> ImageInfo | None:
    try:
        values = json.loads(str(seen))
    except ValueError:
        return None
    if not isinstance(values, list) or len(values) != len(_TYPES):
        return None
    fits = all(isinstance(value, kind) for value, kind in zip(values, _TYPES, strict=True))
    return ImageInfo(*values) if fits else None

"""The output directory of a conversion: complete, resumable, empty, or not written by convkit."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json, to_json

from convkit import layout
from convkit.convert.journal import Journal, extend_digest
from convkit.converters.base import Converter, Options
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.schema import Manifest
from convkit.sources import Source, source_name
from convkit.utils.files import write_atomic

LOCK_ATTEMPTS = 100
"""Attempts to lock a work directory that other runs may remove at the same instant."""


class OutputDirectory:
    """The output directory of one conversion, with its work directory, journal and lock.

    Args:
        path: the directory; it may be missing.
        converter: the class of the requested converter.
        options: the options of the requested conversion.
        source: the path given by the user; None for the converter's default source.
    """

    def __init__(self, path: Path, converter: type[Converter[Any]], options: Options, source: str | None) -> None:
        self.path = path
        self.images = path / layout.IMAGES
        self.manifest = path / layout.MANIFEST
        self.work = path / layout.WORK
        self.scratch = self.work / "scratch"
        self.journal = Journal(self.work / "journal.jsonl", self.images)
        self._job = self.work / "job.json"
        self._converter = converter
        self._options = options
        self._source = source

    @contextmanager
    def completed_or_locked(self) -> Iterator[Manifest | None]:
        """Give the manifest if the directory is complete; otherwise lock the directory and give None."""
        if manifest := self.completed():
            yield manifest
            return
        with self.locked():
            yield self.completed()  # another run may have completed it before the lock was free

    def completed(self) -> Manifest | None:
        """Return the manifest if the directory already holds the requested dataset, None if it is not complete.

        Raises:
            DatasetError: the directory holds another dataset, the source has changed, or files are missing.
        """
        if not self.manifest.exists():
            return None
        manifest = Dataset.open(self.path).manifest
        self._refuse_other(*self._compare(manifest), "contains another dataset")
        if self._source is not None and Path(self._source).is_dir():
            fingerprint = reduce(extend_digest, self._converter(Path(self._source), self._options).items(), "")
            if fingerprint != manifest.source.fingerprint:
                raise DatasetError(
                    f"{self.path} was converted from {self._source}, which has changed since. Choose another "
                    "--out_dir, or remove this one to convert again."
                )
        self._refuse_incomplete(manifest)
        shutil.rmtree(self.work, ignore_errors=True)  # left over if the run was killed just before it ended
        return manifest

    def _compare(self, manifest: Manifest) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the manifest records, and what the requested conversion would record."""
        converter, made_by = self._converter, manifest.converter
        wanted: dict[str, Any] = {
            "converter": converter.name,
            "version": converter.version,
            **self._options.to_manifest(),
        }
        found: dict[str, Any] = {"converter": made_by.name, "version": made_by.version, **made_by.options}
        if self._source is None:
            # The recorded name of a default source ends in its revision or version.
            address = converter.default_source_for(self._options) or ""
            wanted["source"] = address
            found["source"] = address if manifest.source.name.startswith(address) else manifest.source.name
        else:
            path = Path(self._source)
            wanted["source"], found["source"] = source_name(path), manifest.source.name
            wanted["source bytes"] = path.stat().st_size if path.is_file() else None
            found["source bytes"] = manifest.source.bytes
        return found, wanted

    def _refuse_other(self, found: dict[str, Any], wanted: dict[str, Any], problem: str) -> None:
        differences = [
            f"{key} {found.get(key)!r} there, {wanted.get(key)!r} here"
            for key in [*found, *(k for k in wanted if k not in found)]
            if found.get(key) != wanted.get(key)
        ]
        if found["converter"] != wanted["converter"]:
            del differences[1:]  # another converter has other options anyway
        if differences:
            raise DatasetError(
                f"{self.path} {problem}: {'; '.join(differences)}. Choose another --out_dir, or remove this one."
            )

    def _refuse_incomplete(self, manifest: Manifest) -> None:
        """Refuse a directory with fewer files than its manifest lists; `convkit validate` checks their content."""
        media = sum(len(files) for _, _, files in os.walk(self.images))
        missing = [split.file for split in manifest.splits.values() if not (self.path / split.file).is_file()]
        if missing or media < manifest.accounting.media_files:
            raise DatasetError(
                f"{self.path} was complete, but files are missing ({len(missing)} row files; {media:,} of "
                f"{manifest.accounting.media_files:,} media files are there). Restore them, or remove it and convert "
                "again."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the work directory and lock it against a second conversion.

        A failure before the first row removes everything, since the next attempt may use other options.

        Raises:
            DatasetError: the directory is not empty, not writable, or in use.
        """
        self._refuse_foreign()
        existed = self.path.exists()
        with self._lock():
            try:
                yield
            except ConvkitError:
                if not self.journal.has_rows():
                    self._discard_images()
                    shutil.rmtree(self.work, ignore_errors=True)
                    if not existed:
                        with suppress(OSError):  # another run may have started there
                            self.path.rmdir()
                raise

    def _refuse_foreign(self) -> None:
        """Refuse a directory that is neither empty nor written by convkit.

        Another run may be ending: it creates the manifest last, and then removes the work directory.
        """
        for folder in (self.work, *self.work.parents):
            if folder.is_symlink() and not folder.exists():
                raise DatasetError(
                    f"{self.path} cannot be created: {folder} is a symbolic link to {os.readlink(folder)}, which does "
                    "not exist. Create that folder, or choose another --out_dir."
                )
        if self.path.exists() and not self.path.is_dir():
            raise DatasetError(f"{self.path} is a file. Choose a folder for --out_dir.")
        try:
            names = set(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return
        ours = layout.WORK in names or self.work.is_dir() or self.manifest.exists()
        if names and not ours:
            raise DatasetError(f"{self.path} is not empty and contains no convkit dataset. Choose a new --out_dir.")

    def _lock(self) -> IO[str]:
        """Create the work directory, and return an open file that holds its lock until it is closed.

        A run removes the lock file together with the work directory when it ends. A file that was opened before that
        and locked after it protects nothing, so it is opened again.
        """
        import fcntl

        path = self.work / "lock"
        refused: OSError | None = None
        for _ in range(LOCK_ATTEMPTS):
            try:
                self.work.mkdir(parents=True, exist_ok=True)
                file = path.open("w")
            except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
                refused = error  # another run removed it at this instant, or it cannot be created at all
                continue
            refused = None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except BlockingIOError:
                file.close()
                break
            except FileNotFoundError:
                pass
            file.close()
        if refused is not None:
            existing = next(folder for folder in self.work.parents if folder.exists())
            raise DatasetError(
                f"{self.path} cannot be used: no folder can be created in {existing} ({refused.strerror}). "
                "Choose an --out_dir in a folder that you can write to."
            ) from refused
        raise DatasetError(f"another conversion is writing to {self.path}. Wait for it, or choose another --out_dir.")

    def adopt(self, converter: Converter[Any], source: Source) -> None:
        """Record the conversion that this work directory is for.

        Raises:
            DatasetError: the directory holds rows of another conversion.
        """
        # The source's items are not part of it: the journal holds their digests.
        job = {
            "converter": converter.name,
            "version": converter.version,
            "source": source.name,
            "source bytes": source.bytes,
            **converter.options.to_manifest(),
        }
        if self._job.exists() and self.journal.has_rows():
            self._refuse_other(from_json(self._job.read_bytes()), job, "holds an unfinished conversion of another kind")
        else:
            self._discard_images()
            self.journal.path.unlink(missing_ok=True)
            write_atomic(self._job, to_json(job), self.work)

    def _discard_images(self) -> None:
        """Remove media that no row names, but never those of a complete dataset or of somebody else."""
        if self._job.exists() and not self.manifest.exists():
            shutil.rmtree(self.images, ignore_errors=True)

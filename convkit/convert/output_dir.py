"""The output directory of a conversion: whether it is complete, can be gone on with, or is not ours."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json, to_json

from convkit import layout
from convkit.convert.journal import Journal, chain
from convkit.converters.base import Converter, Options
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.schema import Manifest
from convkit.sources import Source, source_name
from convkit.utils.files import write_atomic

JOURNAL = "journal.jsonl"
JOB = "job.json"
TRIES = 100
"""To lock a work directory that other runs remove at the very same instant."""


def finished(out_dir: Path, converter: type[Converter[Any]], options: Options, source: str | None) -> Manifest | None:
    """The manifest, if the directory holds this data set already."""
    if not (out_dir / layout.MANIFEST).exists():
        return None
    manifest = Dataset.open(out_dir).manifest
    made_by = manifest.converter
    wanted = {"converter": converter.name, "version": converter.version, **options.to_manifest()}
    found = {"converter": made_by.name, "version": made_by.version, **made_by.options}
    if source is None:
        # The name of a default source goes on with its revision or version.
        address = converter.default_source_for(options) or ""
        wanted["source"] = address
        found["source"] = address if manifest.source.name.startswith(address) else manifest.source.name
    else:
        path = Path(source)
        wanted["source"], found["source"] = source_name(path), manifest.source.name
        wanted["source bytes"], found["source bytes"] = (
            path.stat().st_size if path.is_file() else None,
            manifest.source.bytes,
        )
    _refuse_other(out_dir, found, wanted, "holds another data set")
    if source is not None and Path(source).is_dir():
        fingerprint = reduce(chain, converter(Path(source), options).items(), "")
        if fingerprint != manifest.source.fingerprint:
            raise DatasetError(
                f"{out_dir} was converted from {source}, which has changed since. Choose another --out_dir, or remove "
                "this one to convert again."
            )
    _refuse_incomplete(out_dir, manifest)
    shutil.rmtree(out_dir / layout.WORK, ignore_errors=True)  # there if the run was killed at its very end
    return manifest


def _refuse_incomplete(out_dir: Path, manifest: Manifest) -> None:
    """Look whether what the manifest promises is there; what is in it is for `convkit validate` to say."""
    media = sum(len(files) for _, _, files in os.walk(out_dir / layout.IMAGES))
    missing = [split.file for split in manifest.splits.values() if not (out_dir / split.file).is_file()]
    if missing or media < manifest.accounting.media_files:
        raise DatasetError(
            f"{out_dir} was complete, but files are missing ({len(missing)} row files; {media:,} of "
            f"{manifest.accounting.media_files:,} media files are there). Restore them, or remove it and convert again."
        )


def _refuse_other(out_dir: Path, found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    differences = [
        f"{key} {found.get(key)!r} there, {wanted.get(key)!r} here"
        for key in [*found, *(k for k in wanted if k not in found)]
        if found.get(key) != wanted.get(key)
    ]
    if found["converter"] != wanted["converter"]:
        del differences[1:]  # of course it has other options
    if differences:
        raise DatasetError(f"{out_dir} {what}: {'; '.join(differences)}. Choose another --out_dir, or remove this one.")


@contextmanager
def workspace(out_dir: Path) -> Iterator[Path]:
    """The work directory, locked against a second conversion.

    A failure before anything became a row leaves nothing behind: the next try may have other options.
    """
    work = out_dir / layout.WORK
    _refuse_foreign(out_dir, work)
    existed = out_dir.exists()
    with _lock(work, out_dir):
        try:
            yield work
        except ConvkitError:
            if not _has_rows(work):
                _discard_images(work)
                shutil.rmtree(work, ignore_errors=True)
                if not existed:
                    with suppress(OSError):  # another run may have begun there
                        out_dir.rmdir()
            raise


def _refuse_foreign(out_dir: Path, work: Path) -> None:
    """Refuse a directory that is neither empty nor ours.

    Another run may be ending: it removes the work directory when the manifest is there, and last of all it made.
    """
    if out_dir.is_file():
        raise DatasetError(f"{out_dir} is a file. Choose a folder for --out_dir.")
    try:
        held = set(os.listdir(out_dir))
    except FileNotFoundError:
        return
    ours = layout.WORK in held or work.is_dir() or (out_dir / layout.MANIFEST).exists()
    if held and not ours:
        raise DatasetError(f"{out_dir} is not empty and holds no data set of convkit. Choose a new --out_dir.")


def _has_rows(work: Path) -> bool:
    return Journal(work / JOURNAL, work.parent / layout.IMAGES).has_rows()


def _discard_images(work: Path) -> None:
    """Remove media that no row names; only ours: not those of a complete data set, nor what stood there before."""
    if (work / JOB).exists() and not (work.parent / layout.MANIFEST).exists():
        shutil.rmtree(work.parent / layout.IMAGES, ignore_errors=True)


def _lock(work: Path, out_dir: Path) -> IO[str]:
    """Make the work directory; what is returned holds its lock until it is closed.

    The lock goes with the directory when a run ends: one that was opened before and locked after protects nothing.
    """
    import fcntl

    path = work / "lock"
    for _ in range(TRIES):
        try:
            work.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except (FileNotFoundError, FileExistsError):  # removed in between
            continue
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
    raise DatasetError(f"another conversion is writing to {out_dir}. Wait for it, or choose another --out_dir.")


def _job(converter: Converter[Any], source: Source) -> dict[str, Any]:
    """What has a bearing on the result, but for the source's items, whose digests are in the journal."""
    return {
        "converter": converter.name,
        "version": converter.version,
        "source": source.name,
        "source bytes": source.bytes,
        **converter.options.to_manifest(),
    }


def claim(work: Path, converter: Converter[Any], source: Source) -> None:
    """Note what this work directory is for; refuse it if there are rows in it that are for something else."""
    path = work / JOB
    job = _job(converter, source)
    if path.exists() and _has_rows(work):
        _refuse_other(work.parent, from_json(path.read_bytes()), job, "holds an unfinished conversion of another kind")
    else:
        _discard_images(work)
        (work / JOURNAL).unlink(missing_ok=True)
        write_atomic(path, to_json(job), work)

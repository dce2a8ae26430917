"""The output directory of a conversion: whether it is complete, can be gone on with, or is not ours."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from convkit import layout
from convkit.converters.base import Converter, Options
from convkit.dataset import Dataset
from convkit.errors import DatasetError, SourceError
from convkit.files import write_atomic
from convkit.journal import chain
from convkit.schema import Manifest
from convkit.sources import Source, name_of

JOURNAL = "journal.jsonl"


def finished(out_dir: Path, converter: type[Converter[Any]], options: Options, source: str | None) -> Manifest | None:
    """The manifest, if the directory holds this data set already."""
    if not (out_dir / layout.MANIFEST).exists():
        return None
    manifest = Dataset.open(out_dir).manifest
    made_by = manifest.converter
    wanted = {"converter": converter.name, "version": converter.version, **options.model_dump(mode="json")}
    found = {"converter": made_by.name, "version": made_by.version, **made_by.options}
    if source is None:
        # The name of a default source goes on with its revision or version.
        address = converter.default_source_for(options) or ""
        wanted["source"] = address
        found["source"] = address if manifest.source.name.startswith(address) else manifest.source.name
    else:
        path = Path(source)
        wanted["source"], found["source"] = name_of(path), manifest.source.name
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
    if differences:
        raise DatasetError(f"{out_dir} {what}: {'; '.join(differences)}. Choose another --out_dir, or remove this one.")


@contextmanager
def workspace(out_dir: Path) -> Iterator[Path]:
    """The work directory, locked against a second conversion and gone again if nothing was begun."""
    work = out_dir / layout.WORK
    if out_dir.is_file():
        raise DatasetError(f"{out_dir} is a file. Choose a folder for --out_dir.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not work.is_dir():
        raise DatasetError(f"{out_dir} is not empty and holds no data set of convkit. Choose a new --out_dir.")
    existed = out_dir.exists()
    work.mkdir(parents=True, exist_ok=True)
    with _lock(work / "lock", out_dir):
        try:
            yield work
        except SourceError:
            if not (work / JOURNAL).exists():
                shutil.rmtree(work if existed else out_dir, ignore_errors=True)
            raise


@contextmanager
def _lock(path: Path, out_dir: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"another conversion is writing to {out_dir}. Wait for it, or choose another --out_dir."
            ) from error
        yield


def _job(converter: Converter[Any], source: Source) -> dict[str, Any]:
    """What has a bearing on the result, but for the source's items, whose digests are in the journal."""
    return {
        "converter": converter.name,
        "version": converter.version,
        "source": source.name,
        "source bytes": source.bytes,
        **converter.options.model_dump(mode="json"),
    }


def claim(work: Path, converter: Converter[Any], source: Source) -> None:
    """Note what this work directory is for, or refuse it if it is for something else."""
    path = work / "job.json"
    job = _job(converter, source)
    if path.exists():
        _refuse_other(work.parent, from_json(path.read_bytes()), job, "holds an unfinished conversion of another kind")
    else:
        write_atomic(path, to_json(job), work)

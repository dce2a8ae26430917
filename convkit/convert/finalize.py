"""Finish a conversion: turn the journal into row files, quarantine and manifest."""

import hashlib
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

from pydantic_core import to_json

from convkit import layout
from convkit.convert.journal import Outcome, Written
from convkit.convert.output_dir import OutputDirectory
from convkit.converters.base import Converter, Exclude, Reject
from convkit.schema import Accounting, ConverterInfo, Manifest, SourceInfo, Split
from convkit.sources import Source
from convkit.utils.files import AtomicFile, sync_folder, write_atomic


def finalize(converter: Converter[Any], source: Source, fingerprint: str, output: OutputDirectory) -> Manifest:
    """Write everything but the media; the manifest comes last and makes the directory complete.

    If it is killed and called again, it writes the same files again.
    """
    accounting = _Accounting()
    with ThreadPoolExecutor(1) as pool, ExitStack() as files:
        synced = pool.submit(os.sync)  # one sync for all media, which runs while the rows are written
        splits: dict[str, _SplitWriter] = {}
        quarantine = None
        for outcome in output.journal.read():
            accounting.add(outcome)
            if isinstance(outcome, Written):
                if outcome.split not in splits:
                    path = output.path / layout.split_file(converter.dataset_name, outcome.split)
                    splits[outcome.split] = _SplitWriter(files.enter_context(closing(AtomicFile(path, output.work))))
                splits[outcome.split].add(outcome)
            elif isinstance(outcome, Reject):
                quarantine = quarantine or files.enter_context(
                    closing(AtomicFile(output.path / layout.QUARANTINE, output.work))
                )
                quarantine.write(to_json(outcome) + b"\n")
        summary = {name: split.commit() for name, split in splits.items()}
        if quarantine:
            quarantine.commit()
        synced.result()
    options = converter.options.to_manifest()
    manifest = Manifest(
        format_version=1,
        name=converter.dataset_name,
        splits=summary,
        converter=ConverterInfo(name=converter.name, version=converter.version, options=options),
        source=SourceInfo(name=source.name, bytes=source.bytes, fingerprint=fingerprint),
        accounting=accounting.total(converter.unit),
    )
    write_atomic(output.manifest, manifest.model_dump_json(indent=2).encode() + b"\n", output.work)
    shutil.rmtree(output.work, ignore_errors=True)  # another run may be trying to lock it; that run removes the rest
    sync_folder(output.path)
    return manifest


class _SplitWriter:
    """The row file of one split, counted and hashed while it is written."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()

    def add(self, outcome: Written) -> None:
        self._counts["rows"] += len(outcome.lines)
        self._counts["turns"] += outcome.turns
        self._counts["images"] += outcome.images
        for line in outcome.lines:
            data = line.encode() + b"\n"
            self._digest.update(data)
            self._file.write(data)

    def commit(self) -> Split:
        self._file.commit()
        counts = {name: self._counts[name] for name in ("rows", "turns", "images")}
        return Split(file=self._file.path.name, sha256=self._digest.hexdigest(), **counts)


class _Accounting:
    """The units read, written, quarantined and excluded, summed over the journal."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._excluded: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        self._counts["read"] += outcome.units
        if isinstance(outcome, Written):
            self._counts["written"] += outcome.units
            self._counts["media_files"] += len(outcome.media)
            self._counts["media_bytes"] += sum(size for _, size in outcome.media)
            if outcome.notes:
                self._notes.update(outcome.notes)
        elif isinstance(outcome, Exclude):
            self._excluded[outcome.reason] += outcome.units
        else:
            self._counts["quarantined"] += outcome.units

    def total(self, unit: str) -> Accounting:
        names = ("read", "written", "quarantined", "media_files", "media_bytes")
        return Accounting(
            unit=unit,
            excluded=dict(sorted((+self._excluded).items())),
            notes=dict(sorted(self._notes.items())),
            **{name: self._counts[name] for name in names},
        )

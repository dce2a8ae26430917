"""Convert a source into a dataset directory, crash-safe and deterministic.

The work directory inside the output holds the journal and media that are not in place yet. Rows, quarantine and, last
of all, the manifest are written when the journal is complete. A directory with a manifest is therefore complete. One
with a work directory can be resumed. Any other was not written by convkit.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from convkit.convert.error_budget import Policy, RejectSummary, default_budget
from convkit.convert.finalize import finalize
from convkit.convert.journal import Entry, Outcome, extend_digest
from convkit.convert.names import NameRegistry
from convkit.convert.output_dir import OutputDirectory
from convkit.convert.worker import address_of, convert_entry, reject_crashed
from convkit.converters.base import Converter, Options, Reject
from convkit.errors import ConvkitError, DatasetError, SourceError
from convkit.schema import Manifest
from convkit.sources import Source, open_source
from convkit.utils import pool
from convkit.utils.progress import Progress, ProgressBars, no_progress_bar


def convert(
    converter: type[Converter[Any]],
    source: str | None,
    options: Options,
    out_dir: Path,
    *,
    workers: int | None = None,
    policy: Policy = Policy(),
    progress_bars: ProgressBars = no_progress_bar,
) -> Manifest:
    """Convert a source, or resume a conversion that was interrupted.

    Args:
        source: a path; None for the converter's default source.
        out_dir: created if missing; it must be empty, or hold this same dataset, complete or not.
        workers: worker processes; None for one per CPU, 0 to convert in this process.
        progress_bars: creates the progress bar of each stage.

    Raises:
        SourceError: the source is missing, remote or not in a known layout, or nothing could be converted.
        DatasetError: `out_dir` holds something else, is in use, or cannot be created.
        ConvkitError: more was quarantined than the policy allows, or there are far too many workers.
    """
    workers = pool.default_workers() if workers is None else workers
    pool.check_workers(workers)
    if source is not None:
        source = os.path.expanduser(source)
        _refuse_remote(source, converter)
        given, output_path = Path(os.path.realpath(source)), Path(os.path.realpath(out_dir))
        if given == output_path:
            raise DatasetError(f"{out_dir} is the source itself. Choose another folder for --out_dir.")
        if given in output_path.parents:
            raise DatasetError(f"{out_dir} lies inside the source {source}. Choose an --out_dir outside of it.")
    output = OutputDirectory(out_dir, converter, options, source)
    with output.completed_or_locked() as manifest:
        if manifest:
            return manifest
        default = converter.default_source_for(options) if source is None else None
        with progress_bars("unpacking", "B") as progress:
            opened = open_source(source, default, converter.suffixes, output.work, progress)
        instance = converter(opened.root, options)
        output.adopt(instance, opened)
        with closing(output.journal):
            fingerprint = _Conversion(instance, opened, output, policy).fill_journal(workers, progress_bars)
            return finalize(instance, opened, fingerprint, output)


def _refuse_remote(source: str, converter: type[Converter[Any]]) -> None:
    """Refuse a URL before it becomes a path, which would change its spelling."""
    if "://" in source and not os.path.exists(source):
        default = converter.default_source
        alternative = f" Without --source, {converter.name} uses {default}." if default else ""
        raise SourceError(
            f"--source {source} is a URL, but remote sources are not supported. Download the data, then pass the path "
            f"of the folder or archive.{alternative}"
        )


class _Conversion:
    """One conversion in progress.

    Args:
        source: the opened source; archive members that were not unpacked are rejects.
        output: the locked output directory.
    """

    def __init__(self, converter: Converter[Any], source: Source, output: OutputDirectory, policy: Policy) -> None:
        self._converter = converter
        self._output = output
        self._journal = output.journal
        self._refused = [Reject(r.address, r.rule, r.reason) for r in source.refused]
        self._on_error = policy.on_error
        self._budget = policy.budget or default_budget(type(converter))
        self._names = NameRegistry(output.images)
        self._rejects = RejectSummary()
        self._digest = ""
        self._read = 0

    def fill_journal(self, workers: int, progress_bars: ProgressBars) -> str:
        """Convert every entry that the journal does not hold yet; returns the digest of all entries."""
        self._output.scratch.mkdir(exist_ok=True)
        total = self._converter.count()
        unit = f"{self._converter.unit}s"
        with progress_bars("reading", unit) as progress:
            entries = self._entries(progress)
        with progress_bars("converting", unit) as progress:
            self._resume(entries)
            self._convert(entries, workers, lambda: progress(self._read, total))
        self._check_budget(complete=True)
        if not self._names.has_rows:
            raise SourceError(f"nothing in the source became a row. {self._rejects.describe()}")
        return self._digest

    def _entries(self, progress: Progress) -> Iterator[Entry]:
        """Return all entries, after the reading that some converters need before the first one."""
        entries: Iterator[Entry] = self._converter.iter_with_progress(progress)
        first = list(islice(entries, 1))
        return itertools.chain(self._refused, first, entries)

    def _resume(self, entries: Iterator[Entry]) -> None:
        """Skip the entries that the journal holds, and restore the names and counts of their outcomes."""
        for digest, outcomes in self._journal.recover():
            self._skip(entries, digest)
            for outcome in outcomes:
                self._names.restore(outcome)
            self._count(outcomes)

    def _skip(self, entries: Iterator[Entry], digest: str) -> None:
        entry = next(entries, None)
        if entry is not None:
            self._digest = extend_digest(self._digest, entry)
        if entry is None or self._digest != digest:
            raise DatasetError(
                f"the source has changed since this conversion was interrupted ({self._converter.unit} "
                f"{self._read + 1} is now {address_of(entry) if entry else 'missing'}). Restore the source, or remove "
                f"{self._output.path} and start again."
            )

    def _convert(self, entries: Iterator[Entry], workers: int, progress: Callable[[], None]) -> None:
        """Convert the remaining entries in order, and append their outcomes to the journal."""
        latest = self._digest
        in_flight: deque[tuple[str, Entry]] = deque()

        def with_digests() -> Iterator[Entry]:
            nonlocal latest
            for entry in entries:
                latest = extend_digest(latest, entry)
                in_flight.append((latest, entry))
                yield entry

        task = partial(convert_entry, self._converter, self._output.scratch)
        imports = ("convkit.convert.worker", type(self._converter).__module__, *self._converter.imports)
        with closing(pool.run(task, with_digests(), workers, reject_crashed, imports)) as results:
            for staged in results:
                self._digest, entry = in_flight.popleft()
                outcomes = self._names.reserve(staged, address_of(entry))
                self._journal.append(self._digest, outcomes)
                self._count(outcomes)
                progress()

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        self._read += sum(outcome.units for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                self._rejects.add(outcome)
                if self._on_error == "fail":
                    raise SourceError(f"{outcome.address}: {outcome.reason} ({outcome.rule}; --on_error fail)")
        self._check_budget(complete=False)

    def _check_budget(self, *, complete: bool) -> None:
        errors = self._rejects.units
        if self._budget.exceeded(errors, self._read, complete=complete):
            kept = (
                "The work so far is kept: to" if self._names.has_rows else "None became a row, so nothing is kept. To"
            )
            raise ConvkitError(
                f"{errors} of {self._read} {self._converter.unit}s could not be converted, more than --max_errors "
                f"allows. {self._rejects.describe()} {kept} accept this, run the same command with a larger "
                "--max_errors."
            )

"""Convert a source into a dataset directory: resumable, deterministic, with nothing lost.

The work directory inside the output holds the journal; media are written there and moved to their place. Rows,
quarantine and, last of all, the manifest are written when the journal is complete. A directory with a manifest is
therefore complete, one with a work directory can be gone on with, and any other is not ours.
"""

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from convkit import layout
from convkit.convert.error_budget import Policy, default_budget
from convkit.convert.finalize import finish
from convkit.convert.journal import Entry, Journal, Outcome, chain
from convkit.convert.names import Claims
from convkit.convert.output_dir import JOURNAL, claim, finished, workspace
from convkit.convert.worker import address_of, crashed, process
from convkit.converters.base import Converter, Options, Reject
from convkit.errors import ConvkitError, DatasetError, SourceError
from convkit.schema import Manifest
from convkit.sources import Source, open_source
from convkit.utils import pool
from convkit.utils.progress import Progress, ProgressBars, no_progress_bar

SCRATCH = "scratch"


def convert(
    converter: type[Converter[Any]],
    source: str | None,
    options: Options,
    out_dir: Path,
    *,
    workers: int | None = None,
    policy: Policy = Policy(),
    bars: ProgressBars = no_progress_bar,
) -> Manifest:
    """Convert, or go on with a conversion that was interrupted.

    Args:
        source: a path; None for the converter's default source.
        out_dir: created where missing; must be empty, or hold this very data set, finished or not.
        workers: processes; None for one a processor, 0 for none but this one.
        bars: makes the progress bar of each stage.

    Raises:
        SourceError: the source is missing or not in a known layout.
        DatasetError: `out_dir` holds something else, is in use, or nothing could be converted.
        ConvkitError: more was quarantined than the policy allows, or there are far too many workers.
    """
    workers = pool.default_workers() if workers is None else workers
    pool.check_workers(workers)
    if source is not None:
        source = os.path.expanduser(source)
    if source is not None and Path(source).resolve() in out_dir.resolve().parents:
        raise DatasetError(f"{out_dir} lies inside the source {source}. Choose an --out_dir outside of it.")
    if complete := finished(out_dir, converter, options, source):
        return complete
    with workspace(out_dir) as work:
        if complete := finished(out_dir, converter, options, source):  # by another run, until the lock was free
            return complete
        with bars("unpacking", "B") as progress:
            default = converter.default_source_for(options) if source is None else None
            opened = open_source(source, default, converter.suffixes, work, progress)
        instance = converter(opened.root, options)
        claim(work, instance, opened)
        run = _Run(instance, opened, out_dir, work, policy)
        try:
            run.fill_journal(workers, bars)
            return finish(instance, opened, run.journal, run.digest, out_dir, work)
        finally:
            run.journal.close()


class _Run:
    """One conversion under way."""

    def __init__(self, converter: Converter[Any], source: Source, out_dir: Path, work: Path, policy: Policy) -> None:
        self.converter = converter
        self.journal = Journal(work / JOURNAL, out_dir / layout.IMAGES)
        self.digest = ""
        self._refused = [Reject(r.address, r.rule, r.reason) for r in source.refused]
        self._scratch = work / SCRATCH
        self._on_error = policy.on_error
        self._budget = policy.budget or default_budget(type(converter))
        self._claims = Claims(out_dir / layout.IMAGES)
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, Reject] = {}
        self._read = 0

    def fill_journal(self, workers: int, bars: ProgressBars) -> None:
        """Run every entry that the journal does not hold yet."""
        self._scratch.mkdir(exist_ok=True)
        total = self.converter.count()
        with bars("reading", f"{self.converter.unit}s") as progress:
            entries = self._entries(progress)
        with bars("converting", f"{self.converter.unit}s") as progress:
            self._fill(entries, workers, lambda: progress(self._read, total))
        self._check_budget(complete=True)
        if not self._claims.rows:
            raise SourceError(f"nothing in the source became a row. {self._account()}")

    def _fill(self, entries: Iterator[Entry], workers: int, progress: Callable[[], None]) -> None:
        for digest, outcomes in self.journal.recover():
            self._skip(entries, digest)
            for outcome in outcomes:
                self._claims.take(outcome)
            self._count(outcomes)
        latest = self.digest
        in_flight: deque[tuple[str, Entry]] = deque()

        def chained() -> Iterator[Entry]:
            nonlocal latest
            for entry in entries:
                latest = chain(latest, entry)
                in_flight.append((latest, entry))
                yield entry

        task = partial(process, self.converter, self._scratch)
        imports = ("convkit.convert.worker", type(self.converter).__module__, *self.converter.imports)
        with closing(pool.run(task, chained(), workers, crashed, imports)) as results:
            for converted in results:
                self.digest, entry = in_flight.popleft()
                outcomes = self._claims.settle(converted, address_of(entry))
                self.journal.append(self.digest, outcomes)
                self._count(outcomes)
                progress()

    def _entries(self, progress: Progress) -> Iterator[Entry]:
        """All entries, behind the reading that some converters do before they have the first."""
        listed: Iterator[Entry] = self.converter.iter_with_progress(progress)
        first = list(islice(listed, 1))
        return itertools.chain(self._refused, first, listed)

    def _skip(self, entries: Iterator[Entry], digest: str) -> None:
        entry = next(entries, None)
        if entry is not None:
            self.digest = chain(self.digest, entry)
        if entry is None or self.digest != digest:
            raise DatasetError(
                f"the source has changed since this conversion was interrupted ({self.converter.unit} "
                f"{self._read + 1} is now {address_of(entry) if entry else 'missing'}). Restore the source, or remove "
                f"{self.journal.path.parent.parent} and start again."
            )

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        self._read += sum(outcome.units for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                self._reasons[outcome.rule] += outcome.units
                self._first.setdefault(outcome.rule, outcome)
                if self._on_error == "fail":
                    raise SourceError(f"{outcome.address}: {outcome.reason} ({outcome.rule}; --on_error fail)")
        self._check_budget(complete=False)

    def _check_budget(self, *, complete: bool) -> None:
        errors = self._reasons.total()
        if self._budget.exceeded(errors, self._read, complete=complete):
            kept = "The work so far is kept: to" if self._claims.rows else "None became a row, so nothing is kept. To"
            raise ConvkitError(
                f"{errors} of {self._read} {self.converter.unit}s could not be converted, more than --max_errors "
                f"allows. {self._account()} {kept} accept this, run the same command with a larger --max_errors."
            )

    def _account(self) -> str:
        reasons = self._reasons.most_common()
        said = [
            f"{count} x {rule} (first: {self._first[rule].address}: {self._first[rule].reason})."
            for rule, count in reasons[:3]
        ]
        said += [f"{count} x {rule}." for rule, count in reasons[3:]]
        return " ".join(said)

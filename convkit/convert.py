"""Convert a source into a dataset directory: resumable, deterministic, with nothing lost.

The work directory inside the output holds the journal; media go straight to their place, each under a temporary name
first; rows, quarantine and, last of all, the manifest are written when the journal is complete. A directory with a
manifest is therefore complete, one with a work directory can be gone on with, and any other is not ours.
"""

import os
import shutil
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from convkit import layout
from convkit.converters.base import Converter, Exclude, Item, Options, Record, Reject
from convkit.engines import local
from convkit.errors import ConvkitError, DatasetError, ItemError, SourceError
from convkit.files import move, put, size_of, write_atomic
from convkit.finish import finish
from convkit.journal import Journal, Outcome, Withdrawn, Written, chain
from convkit.progress import Bars, Progress, silent
from convkit.schema import Manifest
from convkit.sources import Source, name_of, open_source

OnError = Literal["quarantine", "fail"]
Entry = Item | Reject | Exclude
SCRATCH = "scratch"
MAX_NAME_BYTES = 255
"""Of one part of a path, on all common file systems."""


@dataclass(frozen=True)
class Budget:
    """How much may be quarantined before the conversion stops: a number, or a share of what was read."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `100` or `5%`.

        Raises:
            ConvkitError: it is neither.
        """
        try:
            budget = cls(share=float(text[:-1]) / 100) if text.endswith("%") else cls(count=int(text))
        except ValueError:
            budget = cls(count=-1)
        if (budget.count or 0) < 0 or not 0 <= (budget.share or 0) <= 1:
            raise ConvkitError(f"--max_errors {text} is neither a number such as 100 nor a share such as 5%.")
        return budget

    def exceeded(self, errors: int, read: int, *, complete: bool) -> bool:
        """A share is judged on a thousand entries or more, or at the end."""
        if self.count is not None:
            return errors > self.count
        return self.share is not None and errors > self.share * (read if complete else max(read, 1000))


@dataclass(frozen=True)
class Policy:
    """What to do about items that cannot become rows."""

    on_error: OnError = "quarantine"
    budget: Budget = Budget(count=100)


def convert(
    converter: type[Converter[Any]],
    source: str | None,
    options: Options,
    out_dir: Path,
    *,
    workers: int | None = None,
    policy: Policy = Policy(),
    bars: Bars = silent,
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
        ConvkitError: more was quarantined than the policy allows.
    """
    if source is not None and Path(source).resolve() in out_dir.resolve().parents:
        raise DatasetError(f"{out_dir} lies inside the source {source}. Choose an --out_dir outside of it.")
    if complete := _complete(out_dir, converter, options, source):
        shutil.rmtree(out_dir / layout.WORK, ignore_errors=True)
        return complete
    with _workspace(out_dir) as work:
        with bars("unpacking", "B") as progress:
            opened = open_source(source, converter.default_source, converter.suffixes, work, progress)
        instance = converter(opened.root, options)
        _claim(work, _job(instance, opened))
        run = _Run(instance, opened, out_dir, work, policy)
        try:
            with bars("converting", f"{converter.unit}s") as progress:
                run.fill_journal(local.default_workers() if workers is None else workers, progress)
            return finish(instance, opened, run.journal, run.digest, out_dir, work)
        finally:
            run.journal.close()


class _Run:
    """One conversion under way."""

    def __init__(self, converter: Converter[Any], source: Source, out_dir: Path, work: Path, policy: Policy) -> None:
        self.converter = converter
        self.journal = Journal(work / "journal.jsonl", out_dir / layout.IMAGES)
        self.digest = ""
        self._refused = [Reject(r.address, r.rule, r.reason) for r in source.refused]
        self._images = out_dir / layout.IMAGES
        self._scratch = work / SCRATCH
        self._policy = policy
        self._ids: set[int] = set()
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, Reject] = {}
        self._read = 0

    def fill_journal(self, workers: int, progress: Progress) -> None:
        """Run every entry that the journal does not hold yet."""
        self._scratch.mkdir(exist_ok=True)
        total = self.converter.count()
        entries = self._entries()
        for digest, outcomes in self.journal.recover():
            self._skip(entries, digest)
            self._count(self._unique(outcome, "") for outcome in outcomes)
        latest = self.digest
        in_flight: deque[tuple[str, Entry]] = deque()

        def chained() -> Iterator[Entry]:
            nonlocal latest
            for entry in entries:
                latest = chain(latest, entry)
                in_flight.append((latest, entry))
                yield entry

        task = partial(process, self.converter, self._images, self._scratch)
        for converted in local.run(task, chained(), workers, _crashed):
            self.digest, entry = in_flight.popleft()
            outcomes = tuple(self._unique(outcome, _address(entry)) for outcome in converted)
            self.journal.append(self.digest, outcomes)
            self._count(outcomes)
            progress(self._read, total)
        self._check_budget(complete=True)
        if not self._ids:
            shutil.rmtree(self.journal.path.parent)
            raise SourceError(f"nothing in the source became a row. {self._account()}")

    def _entries(self) -> Iterator[Entry]:
        yield from self._refused
        yield from self.converter.items()

    def _skip(self, entries: Iterator[Entry], digest: str) -> None:
        entry = next(entries, None)
        if entry is not None:
            self.digest = chain(self.digest, entry)
        if entry is None or self.digest != digest:
            raise DatasetError(
                f"the source has changed since this conversion was interrupted (entry {self._read + 1} is now "
                f"{_address(entry) if entry else 'missing'}). Restore the source, or remove "
                f"{self.journal.path.parent.parent} and start again."
            )

    def _unique(self, outcome: Outcome, address: str) -> Outcome:
        """Take the row ids of an outcome, or reject it where one is taken."""
        if isinstance(outcome, Written):
            if taken := next((i for i in outcome.ids if hash(i) in self._ids), None):
                paths = tuple(path for path, _ in outcome.media)
                return Withdrawn(
                    address, "duplicate-id", f"an earlier row has its row id {taken}", outcome.units, paths
                )
            self._ids.update(map(hash, outcome.ids))
        return outcome

    def _count(self, outcomes: Iterable[Outcome]) -> None:
        self._read += 1
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                self._reasons[outcome.rule] += 1
                self._first.setdefault(outcome.rule, outcome)
                if self._policy.on_error == "fail":
                    raise SourceError(f"{outcome.address}: {outcome.reason} ({outcome.rule}; --on_error fail)")
        self._check_budget(complete=False)

    def _check_budget(self, *, complete: bool) -> None:
        errors = self._reasons.total()
        if self._policy.budget.exceeded(errors, self._read, complete=complete):
            raise ConvkitError(
                f"{errors} of {self._read} entries could not be converted, more than --max_errors allows. "
                f"{self._account()} The work so far is kept: to accept this, run the same command with a larger "
                "--max_errors."
            )

    def _account(self) -> str:
        return " ".join(
            f"{count} x {rule} (first: {self._first[rule].address}: {self._first[rule].reason})."
            for rule, count in self._reasons.most_common(3)
        )


def process(converter: Converter[Any], images: Path, scratch: Path, entry: Entry) -> tuple[Outcome, ...]:
    """Convert one entry and put its media in place; runs in a worker.

    An error of the source becomes a `Reject`; an error of the output, such as a full disk, is raised.
    """
    if not isinstance(entry, Item):
        return (entry,)
    outcomes: list[Outcome] = []
    staged: list[tuple[Path, Path]] = []
    for part in _parts(converter, entry):
        if isinstance(part, Record):
            for path, data in part.media.items():
                staged.append((scratch / f"{os.getpid()}-{len(staged)}", images / path))
                put(staged[-1][0], data)
            outcomes.append(_written(part))
        else:
            outcomes.append(part)
    # Only now: an item that kills this process on the way leaves nothing in the product.
    for temporary, target in staged:
        move(temporary, target)
    return tuple(outcomes)


def _parts(converter: Converter[Any], item: Item) -> Iterator[Record | Reject]:
    """What the converter makes of an item; whatever goes wrong, all its units are accounted for."""
    left = item.units
    rule = reason = ""
    try:
        result = converter.convert(item)
        for part in (result,) if isinstance(result, Record) else result:
            if isinstance(part, Record):
                _check(part)
            if part.units > left:
                raise ItemError("converter-error", f"the converter gives more {converter.unit}s than the item holds")
            left -= part.units
            yield part
    except ItemError as error:
        rule, reason = error.rule, error.reason
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        rule, reason = (
            "invalid-row",
            f"the row would break the schema: {'/'.join(map(str, first['loc']))}: {first['msg']}",
        )
    except OSError as error:
        rule, reason = "unreadable", f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a converter's defect must not cost the other rows; it is named and counted
        frame = traceback.extract_tb(error.__traceback__)[-1]
        rule, reason = (
            "converter-error",
            f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})",
        )
    if left or rule:
        yield Reject(item.address, rule or "converter-error", reason or f"{left} units are unaccounted for", left)


def _written(record: Record) -> Written:
    return Written(
        split=record.split,
        lines=tuple(row.to_line().decode() for row in record.rows),
        ids=tuple(row.id for row in record.rows),
        turns=sum(len(row.conversations) for row in record.rows),
        images=sum(len(turn.images) for row in record.rows for turn in row.conversations),
        media=tuple((path, size_of(content)) for path, content in record.media.items()),
        notes=record.notes,
        units=record.units,
    )


def _check(record: Record) -> None:
    """What the schema cannot see and the writer could not take back."""
    named = {image for row in record.rows for turn in row.conversations for image in turn.images}
    if unnamed := set(record.media) - named:
        # Media that no row names would be orphans, and their paths would be unchecked.
        raise ItemError("converter-error", f"the converter gives media that no row names: {min(unnamed)}")
    if long := next((p for path in record.media for p in path.split("/") if len(p.encode()) > MAX_NAME_BYTES), None):
        raise ItemError("bad-name", f"the file name would be too long: {long[:40]}…")
    ids = [row.id for row in record.rows]
    if twice := next((i for k, i in enumerate(ids) if i in ids[:k]), None):
        raise ItemError("duplicate-id", f"two of its rows have the row id {twice}")


def _crashed(entry: Entry) -> tuple[Outcome, ...]:
    reason = "the process that decoded it died (a crash in a decoder, or out of memory)"
    return (Reject(_address(entry), "crash", reason, entry.units),)


def _address(entry: Entry) -> str:
    return entry.reason if isinstance(entry, Exclude) else entry.address


def _complete(out_dir: Path, converter: type[Converter[Any]], options: Options, source: str | None) -> Manifest | None:
    """The manifest, if the directory holds this data set already."""
    from convkit.dataset import Dataset

    if not (out_dir / layout.MANIFEST).exists():
        return None
    manifest = Dataset.open(out_dir).manifest
    made_by = manifest.converter
    wanted = {"converter": converter.name, "version": converter.version, **options.model_dump(mode="json")}
    found = {"converter": made_by.name, "version": made_by.version, **made_by.options}
    if source is None:
        # The name of a default source goes on with its revision or version.
        address = converter.default_source or ""
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
    return manifest


def _refuse_other(out_dir: Path, found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    differences = [
        f"{key} {found.get(key)!r} there, {wanted.get(key)!r} here"
        for key in [*found, *(k for k in wanted if k not in found)]
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise DatasetError(f"{out_dir} {what}: {'; '.join(differences)}. Choose another --out_dir, or remove this one.")


@contextmanager
def _workspace(out_dir: Path) -> Iterator[Path]:
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
            if not (work / "journal.jsonl").exists():
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


def _claim(work: Path, job: dict[str, Any]) -> None:
    """Note what this work directory is for, or refuse it if it is for something else."""
    path = work / "job.json"
    if path.exists():
        _refuse_other(work.parent, from_json(path.read_bytes()), job, "holds an unfinished conversion of another kind")
    else:
        write_atomic(path, to_json(job), work)

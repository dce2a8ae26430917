"""Proves data sets sound: reads their rows, looks at their media, and collects what the rules find.

Never prints. Rows are streamed: memory is taken by findings, and by some 200 bytes for each id and image path.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from convkit import layout, receipt
from convkit.dataset import MAX_LINE_BYTES, Dataset, Line, read_lines
from convkit.engines import local
from convkit.errors import ConvkitError, DatasetError
from convkit.findings import Finding, Report, Severity, Summary
from convkit.media import images
from convkit.profiles import Target
from convkit.progress import Progress
from convkit.rules import CHECKS, codes
from convkit.rules import file as file_rules
from convkit.rules import media as media_rules
from convkit.rules.base import Check, Corpus, Place, Problem, RowFile, shown
from convkit.rules.model import ModelCheck
from convkit.rules.row import explain
from convkit.schema import Conversation

Media = Literal["decode", "header", "none"]
"""How far image files are read: to the last pixel, their header, or not at all."""


@dataclass(frozen=True)
class Result:
    """What came of a validation."""

    report: Report
    receipts: tuple[Path, ...] = ()
    """Written for the dataset directories that passed."""
    notes: tuple[str, ...] = ()
    """What else happened to receipts: removed because the data set no longer passes, or not written, and why."""


def validate(
    paths: Sequence[Path],
    *,
    media: Media = "decode",
    target: Target | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run all rules over data sets.

    Args:
        paths: row files, whose images are in the folder images/ beside them; dataset directories; or directories
            with row files but without a manifest. Files of one directory are one data set.
        media: how far image files are read; each is read once, however many rows name it.
        target: the model that the rows are meant for; without one, rules about models are not asked.
        workers: processes that decode; 0 decodes in this one. As many as there are processors if not given.
        progress: called with bytes of rows read so far, and in all, every 64 KiB.

    Raises:
        ConvkitError: a path is missing, has no rows or cannot be read; then no receipt was written or removed.
    """
    scans = [_Scan(corpus, dataset, media, target) for corpus, dataset in _data_sets(paths)]
    meter = _Meter(scans, progress)
    waiting: deque[tuple[_Scan, _Mention]] = deque()

    def jobs() -> Iterator[tuple[Path, str]]:
        for scan in scans:
            for mention in scan.read(meter):
                waiting.append((scan, mention))
                yield scan.images, mention.path

    if media == "none":  # no jobs, so no processes
        workers = 0
    task = partial(_look, media == "decode")
    for outcome in local.run(task, jobs(), local.default_workers() if workers is None else workers, _crashed):
        scan, mention = waiting.popleft()
        scan.looked(mention, outcome)
    for scan in scans:
        scan.end()
    return _result(scans)


def _look(decode: bool, job: tuple[Path, str]) -> images.Image | images.ImageProblem:
    return images.check(job[0], decode, job[1])


def _crashed(job: tuple[Path, str]) -> images.Image | images.ImageProblem:
    return images.crashed(job[1])


class _Mention(NamedTuple):
    """The first place where a data set names an image."""

    path: str
    place: Place
    pointer: str


class _Meter:
    """Tells the progress of all scans together."""

    def __init__(self, scans: "list[_Scan]", progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0
        self._total = sum(f.path.stat().st_size for scan in scans for f in scan.corpus.files if f.path.is_file())

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


class _Scan:
    """One data set on its way through the rules."""

    def __init__(self, corpus: Corpus, dataset: Dataset | None, media: Media, target: Target | None) -> None:
        self.corpus = corpus
        self.dataset = dataset
        self.media = media
        self.target = target
        self.images = corpus.directory / layout.IMAGES
        self.findings: list[Finding] = []
        self.digest = receipt.MediaDigest()
        self._checks = [check(corpus) for check in CHECKS]
        if target:
            self._checks.append(ModelCheck(corpus, target))
        # Most checks have something to say at the end only; to call them for each row costs 4 % of the time.
        self._row_checks = [check for check in self._checks if type(check).row is not Check.row]
        corpus.media = media != "none"

    def read(self, meter: _Meter) -> Iterator[_Mention]:
        """Read all rows; yield each image where it is first named."""
        for file in self.corpus.files:
            try:
                yield from self._read_file(file, meter)
            except OSError as error:
                raise ConvkitError(f"{file.path} cannot be read: {error.strerror}. Check its permissions.") from None

    def _read_file(self, file: RowFile, meter: _Meter) -> Iterator[_Mention]:
        if not file.path.is_file():
            file.missing = True
            return
        digest = hashlib.sha256()

        def watch(block: memoryview) -> None:
            digest.update(block)
            meter.add(len(block))

        name = file.name
        for line in read_lines(file.path, MAX_LINE_BYTES, watch):
            try:
                row = Conversation.model_validate_json(line.raw)
            except ValidationError as error:
                self._bad_line(file, name, line, error)
            else:
                place = Place(name, line.number, row.id)
                self._count(file, row)
                self._check(place, row)
                if self.corpus.media:
                    yield from self._new_images(place, row)
        file.sha256 = digest.hexdigest()
        if not file.rows:
            self._found(Place(name), Problem(file_rules.EMPTY_FILE, "the file holds no row"))

    def _bad_line(self, file: RowFile, name: str, line: Line, error: ValidationError) -> None:
        row_id, problems = None, []
        if line.overlong:
            problems = [Problem(file_rules.OVERLONG_LINE, f"the line is longer than {MAX_LINE_BYTES:,} bytes")]
        elif file_rules.is_blank(line.raw):
            self._found(Place(name, line.number), Problem(file_rules.BLANK_LINE, "the line is blank"))
            return
        else:
            row_id, problems = explain(line.raw, line.number, error)
        file.rows += 1
        file.bad_rows += 1
        for problem in problems:
            self._found(Place(name, line.number, row_id), problem)

    def _count(self, file: RowFile, row: Conversation) -> None:
        file.rows += 1
        file.turns += len(row.conversations)
        for turn in row.conversations:
            file.images += len(turn.images)

    def _check(self, place: Place, row: Conversation) -> None:
        for check in self._row_checks:
            for problem in check.row(place, row):
                self._found(place, problem)

    def _new_images(self, place: Place, row: Conversation) -> Iterator[_Mention]:
        mentioned = self.corpus.mentioned
        for turn_index, turn in enumerate(row.conversations):
            for index, path in enumerate(turn.images):
                key = hash(path)
                if key not in mentioned:
                    mentioned.add(key)
                    yield _Mention(path, place, f"/conversations/{turn_index}/images/{index}")

    def _found(self, place: Place, problem: Problem) -> None:
        self.findings.append(place.finding(problem))

    def looked(self, mention: _Mention, outcome: images.Image | images.ImageProblem) -> None:
        """Take in what was seen of an image; called in the order in which `read` yielded them."""
        if isinstance(outcome, images.ImageProblem):
            self._found(mention.place, media_rules.image_problem(outcome.rule, outcome.message, mention.pointer))
        elif outcome.sha256 is not None:
            self.digest.add(mention.path, outcome.bytes, outcome.sha256)

    def end(self) -> None:
        """Ask what is asked at the end, and put the findings in order: the manifest, row files, other files."""
        for check in self._checks:
            self.findings.extend(check.end())
        names = [shown(self.corpus.directory / layout.MANIFEST), *(file.name for file in self.corpus.files)]
        ranks = {name: rank for rank, name in enumerate(names)}
        self.findings.sort(key=lambda f: (ranks.get(f.file, len(names)), f.file, f.line or 0, f.code))

    def count(self, severity: Severity) -> int:
        """The number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def _data_sets(paths: Sequence[Path]) -> list[tuple[Corpus, Dataset | None]]:
    found: dict[Path, tuple[Corpus, Dataset | None]] = {}
    # Directories first: a file of a directory that is given as well belongs to its data set.
    for path in sorted(paths, key=lambda path: not path.is_dir()):
        home = (path if path.is_dir() else path.parent).resolve()
        if path.is_dir():
            if home not in found:
                found[home] = _directory(path)
        else:
            corpus, _ = found.setdefault(home, (Corpus(path.parent, []), None))
            _add_file(corpus, path)
    return list(found.values())


def _directory(path: Path) -> tuple[Corpus, Dataset | None]:
    dataset = Dataset.open(path) if (path / layout.MANIFEST).exists() else None
    if dataset:
        names = dict.fromkeys(split.file for split in dataset.manifest.splits.values())
        files = [RowFile(path / name) for name in names]
    else:
        files = [RowFile(file) for file in layout.row_files(path)]
    if dataset is None and (path / layout.WORK).is_dir():
        raise DatasetError(f"The conversion into {path} is not finished. Run the same convkit convert command again.")
    if not files:
        raise DatasetError(
            f"{path} has no row files (*{layout.ROWS_SUFFIX}). Give a directory that convkit convert has "
            "written, or a row file."
        )
    return Corpus(path, files, dataset.manifest if dataset else None, whole=True), dataset


def _add_file(corpus: Corpus, path: Path) -> None:
    if not path.exists():
        raise ConvkitError(f"{path} does not exist. Give a row file (*{layout.ROWS_SUFFIX}) or a dataset directory.")
    if not path.is_file() or path.suffix != layout.ROWS_SUFFIX:
        raise ConvkitError(f"{path} is not a row file (*{layout.ROWS_SUFFIX}). Give one, or a dataset directory.")
    if all(file.path.name != path.name for file in corpus.files):
        corpus.files.append(RowFile(path))


def _result(scans: list[_Scan]) -> Result:
    receipts, notes = [], []
    for scan in scans:
        if scan.dataset is None:
            continue
        path = scan.corpus.directory / layout.RECEIPT
        try:
            if scan.count(Severity.ERROR):
                if path.exists():
                    path.unlink()
                    notes.append(f"receipt removed: {path}: the data set does not pass any more")
            elif scan.media == "decode":
                receipts.append(receipt.write(scan.corpus.directory, _receipt(scan, scan.dataset)))
        except OSError as error:
            notes.append(f"receipt not written or removed: {path}: {error.strerror}")
    findings = [finding for scan in scans for finding in scan.findings]
    summary = Summary(
        rows=sum(file.rows for scan in scans for file in scan.corpus.files),
        errors=sum(scan.count(Severity.ERROR) for scan in scans),
        warnings=sum(scan.count(Severity.WARNING) for scan in scans),
    )
    return Result(Report(summary=summary, findings=findings), tuple(receipts), tuple(notes))


def _receipt(scan: _Scan, dataset: Dataset) -> receipt.Receipt:
    warnings = Counter(finding.code for finding in scan.findings)
    return receipt.Receipt(
        manifest=dataset.manifest_sha256,
        rows={file.path.name: receipt.RowsReceipt(rows=file.rows, sha256=file.sha256) for file in scan.corpus.files},
        media=scan.digest.receipt(),
        rules=codes(with_model=scan.target is not None),
        warnings=dict(sorted(warnings.items())),
    )

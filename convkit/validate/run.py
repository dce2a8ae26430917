"""Proves data sets sound: reads their rows, looks at their media, and collects what the rules find.

Never prints. Two passes, in worker processes: pieces of row files first, then the images that rows name;
and, where a model is named, a third one over the rows. Memory is
taken by findings, by some 16 bytes for each row and 8 for each image; beyond some hundred megabytes these lie on disk.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from convkit import layout, receipt
from convkit.dataset import MAX_LINE_BYTES, Dataset
from convkit.errors import ConvkitError
from convkit.findings import Report, by_code, report_of
from convkit.media.cache import MediaCache
from convkit.media.images import ImageInfo, ImageProblem
from convkit.profiles import TargetModel
from convkit.rules.base import Mention
from convkit.rules.lookup import split_names
from convkit.rules.registry import codes
from convkit.utils import pool
from convkit.utils.progress import Bars, Progress, silent
from convkit.validate import image_pass as media_pass
from convkit.validate import model_worker
from convkit.validate.chunks import PIECE_BYTES, Piece, cut
from convkit.validate.inputs import data_sets
from convkit.validate.row_worker import Job, parse
from convkit.validate.scan import Scan
from convkit.validate.settings import EVERYTHING, Selection, told

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
    target: TargetModel | None = None,
    workers: int | None = None,
    bars: Bars = silent,
    selection: Selection = EVERYTHING,
) -> Result:
    """Run all rules over data sets.

    Args:
        paths: row files, plain or compressed, whose images are in the folder images/ beside them; dataset
            directories; directories with row files but without a manifest; `-` for rows on standard input. Files of
            one directory are one data set.
        media: how far image files are read; each is read once, however many rows name it, and not at all where it
            has not changed since the last run.
        target: the model that the rows are meant for; without one, rules about models are not asked.
        workers: processes; 0 does all work in this one. As many as there are processors if not given.
        bars: makes a progress bar for each pass.
        selection: which findings are reported, and as what; a receipt asks for all errors to be mended.

    Raises:
        ConvkitError: a path is missing, has no rows or cannot be read, or there are too many workers; then no receipt
            was written or removed.
    """
    count = pool.default_workers() if workers is None else workers
    pool.check_workers(count)
    with data_sets(paths) as targets:
        for corpus, _ in targets:
            corpus.media = media != "none"
        scans = [Scan(corpus, dataset) for corpus, dataset in targets]
        with bars("reading rows", "B") as update:
            _read_rows(scans, count, update)
        if media != "none":
            with bars("looking at images", "images") as update:
                _look_at_images(scans, media == "decode", count, update, keep_sizes=target is not None)
        if target:
            with bars(f"counting tokens for {target.spec}", "rows") as update, TemporaryDirectory() as scratch:
                _count_tokens(scans, target, count, update, Path(scratch))
        for scan in scans:
            scan.end()
    return _result(scans, media, target, selection)


Source = tuple[Scan, int]
"""A data set and the number of one of its row files."""


def _read_rows(scans: Sequence[Scan], workers: int, progress: Progress) -> None:
    sources = [(scan, number) for scan in scans for number, _ in enumerate(scan.corpus.files)]
    total, plain = _size(sources)
    waiting: deque[Source] = deque()
    done = 0

    def watch(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total if plain else None)

    def jobs() -> Iterator[Job]:
        for scan, number in sources:
            # There is nothing else that the digest is compared with, or bound to.
            for piece in _pieces(scan, number, watch, with_digest=scan.corpus.manifest is not None):
                waiting.append((scan, number))
                yield piece, scan.corpus.key

    task = partial(parse, max_line=MAX_LINE_BYTES, mentions=any(scan.corpus.media for scan in scans))
    for parsed in pool.run(task, jobs(), _worth(workers, total), lambda job: _crashed(job[0]), [parse.__module__]):
        scan, number = waiting.popleft()
        scan.take_rows(number, parsed)
    for scan, number in sources:
        scan.file_ends(number)


def _count_tokens(scans: Sequence[Scan], target: TargetModel, workers: int, progress: Progress, scratch: Path) -> None:
    sources = [(scan, number) for scan in scans for number, _ in enumerate(scan.corpus.files)]
    total = sum(file.rows - file.bad_rows for scan in scans for file in scan.corpus.files)
    waiting: deque[Source] = deque()
    done = 0

    def jobs() -> Iterator[model_worker.Job]:
        for index, scan in enumerate(scans):
            sizes = scratch / f"{index}.npy"
            scan.sizes.save(sizes)
            for number, split in enumerate(split_names(scan.corpus)):
                for piece in _pieces(scan, number, lambda count: None):
                    waiting.append((scan, number))
                    yield model_worker.Job(piece, scan.corpus.key, layout.is_training(split), str(sizes))

    task = partial(model_worker.judge, target=target, max_line=MAX_LINE_BYTES)
    count = _worth(workers, _size(sources)[0])
    for judged in pool.run(task, jobs(), count, lambda job: _crashed(job.piece), [model_worker.__name__]):
        scan, number = waiting.popleft()
        scan.take_judged(number, judged)
        done += judged.rows
        progress(done, total)


def _worth(workers: int, size: int) -> int:
    """What is read in a moment is not worth the start of a process."""
    return workers if size > 2 * PIECE_BYTES else 0


def _crashed(piece: Piece) -> Any:
    raise ConvkitError(
        f"The process that read {piece.path} from line {piece.first_line} on died, probably for lack of memory."
    )


def _size(sources: Sequence[Source]) -> tuple[int, bool]:
    """Bytes of all row files, and whether they are those that will be read."""
    files = [scan.corpus.files[number].path for scan, number in sources]
    files = [path for path in files if path.is_file()]
    return sum(path.stat().st_size for path in files), all(path.suffix not in layout.COMPRESSED for path in files)


def _pieces(scan: Scan, number: int, watch: Callable[[int], None], *, with_digest: bool = False) -> Iterator[Piece]:
    file = scan.corpus.files[number]
    if not file.path.is_file():
        file.missing = True
        return
    try:
        yield from cut(file, MAX_LINE_BYTES, watch, with_digest=with_digest)
    except OSError as error:
        raise ConvkitError(f"{file.path} cannot be read: {error.strerror}. Check its permissions.") from None


def _look_at_images(scans: Sequence[Scan], decode: bool, workers: int, progress: Progress, *, keep_sizes: bool) -> None:
    total = sum(len(scan.mentions) for scan in scans)
    done = 0
    for scan in scans:

        def take(mention: Mention, outcome: ImageInfo | ImageProblem, scan: Scan = scan) -> None:
            nonlocal done
            done += 1
            progress(done, total)
            scan.take_image(mention, outcome)
            if keep_sizes and isinstance(outcome, ImageInfo):
                scan.sizes.add(mention.path, outcome)

        cache = MediaCache(layout.media_cache(scan.images))
        try:
            media_pass.look_at_all(scan.images, scan.mentions, take, decode=decode, workers=workers, cache=cache)
        finally:
            cache.close()


def _result(scans: Sequence[Scan], media: Media, target: TargetModel | None, selection: Selection) -> Result:
    receipts, notes = [], []
    for scan in scans:
        if scan.dataset is None:
            continue
        path = scan.corpus.directory / layout.RECEIPT
        try:
            if selection.refuses(scan.findings):
                if path.exists():
                    path.unlink()
                    notes.append(f"receipt removed: {path}: the data set does not pass any more")
                if hidden := selection.hidden_errors(scan.findings):
                    notes.append(f"receipt not written: {path}: {told(hidden)}")
            elif media == "decode":
                new = _receipt(scan, scan.dataset, target)
                if receipt.vouches_for_other_media(scan.corpus.directory, new):
                    notes.append(f"other images than at the last validation, in the same rows: {scan.images}")
                receipts.append(receipt.write(scan.corpus.directory, new))
        except OSError as error:
            notes.append(f"receipt not written or removed: {path}: {error.strerror}")
    findings = selection.apply(finding for scan in scans for finding in scan.findings)
    rows = sum(file.rows for scan in scans for file in scan.corpus.files)
    return Result(report_of(rows, findings), tuple(receipts), tuple(notes))


def _receipt(scan: Scan, dataset: Dataset, target: TargetModel | None) -> receipt.Receipt:
    warnings = by_code(scan.findings)
    return receipt.Receipt(
        manifest=dataset.manifest_sha256,
        rows={file.path.name: receipt.RowsReceipt(rows=file.rows, sha256=file.sha256) for file in scan.corpus.files},
        media=scan.digest.receipt(),
        rules=codes(with_model=target is not None),
        profile=target.spec if target else None,
        options={"media": "decode", **(target.options() if target else {})},
        warnings=dict(sorted(warnings.items())),
    )

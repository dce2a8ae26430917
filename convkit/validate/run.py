"""Validate datasets: read rows and images in worker processes, run all rules, and write validation receipts.

Prints nothing. Two passes: chunks of row files, then the images that rows reference. With a model, a third pass over
the rows counts tokens. Memory holds the findings, some 16 bytes per row and 8 per image; above a few hundred
megabytes, rows and images are kept on disk.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from convkit import layout, receipt
from convkit.dataset import MAX_LINE_BYTES
from convkit.errors import ConvkitError
from convkit.findings import Report, by_code, report_of
from convkit.media.cache import MediaCache
from convkit.media.images import ImageInfo, ImageProblem
from convkit.profiles import TargetModel
from convkit.rules.base import ImageRef
from convkit.rules.lookup import split_names
from convkit.rules.registry import codes
from convkit.utils import pool
from convkit.utils.progress import Progress, ProgressBars, no_progress_bar
from convkit.validate import image_pass, model_worker
from convkit.validate.chunks import CHUNK_BYTES, RowChunk, read_chunks
from convkit.validate.inputs import open_datasets
from convkit.validate.row_worker import RowJob, parse_rows
from convkit.validate.scan import DatasetScan
from convkit.validate.selection import DEFAULT_SELECTION, Selection, describe_hidden_errors
from convkit.validate.settings import Media


@dataclass(frozen=True)
class Result:
    """The result of a validation: the report, and the receipts that were written."""

    report: Report
    receipts: tuple[Path, ...] = ()
    """One per dataset directory that passed."""
    notes: tuple[str, ...] = ()
    """Receipts that were removed or not written, with the reason."""


def validate(
    paths: Sequence[Path],
    *,
    media: Media = "decode",
    target: TargetModel | None = None,
    workers: int | None = None,
    bars: ProgressBars = no_progress_bar,
    selection: Selection = DEFAULT_SELECTION,
) -> Result:
    """Run all rules over datasets, and write or remove their validation receipts.

    Args:
        paths: row files, plain or compressed, with an images/ folder beside them; dataset directories; directories
            with row files but without a manifest; `-` for rows on standard input. Files of one directory are one
            dataset.
        media: how much of each image file is read. Each file is read once, and not again until it changes.
        target: the model that the rows are for; rules CK4xx run only with one.
        workers: number of worker processes; 0 runs in-process. Default: CPU count.
        bars: makes a progress bar for each pass.
        selection: which findings are reported, with which severity. It cannot make a receipt out of errors.

    Raises:
        ConvkitError: a path is missing, has no rows or cannot be read, or there are too many workers. No receipt was
            written or removed then.
    """
    count = pool.default_workers() if workers is None else workers
    pool.check_workers(count)
    with open_datasets(paths) as datasets:
        for dataset in datasets:
            dataset.media = media != "none"
        scans = [DatasetScan(dataset) for dataset in datasets]
        with bars("reading rows", "B") as update:
            _read_rows(scans, count, update)
        if media != "none":
            with bars("reading images", "images") as update:
                _read_images(scans, media == "decode", count, update, keep_sizes=target is not None)
        if target:
            with bars(f"counting tokens for {target.spec}", "rows") as update, TemporaryDirectory() as scratch:
                _count_tokens(scans, target, count, update, Path(scratch))
        for scan in scans:
            scan.finish()
    return _result(scans, media, target, selection)


Source = tuple[DatasetScan, int]
"""A dataset and the index of one of its row files."""


def _read_rows(scans: Sequence[DatasetScan], workers: int, progress: Progress) -> None:
    sources = _sources(scans)
    total, plain = _total_bytes(sources)
    pending: deque[Source] = deque()
    done = 0

    def on_block(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total if plain else None)

    def jobs() -> Iterator[RowJob]:
        for scan, number in sources:
            # Only the manifest and the receipt use the digest.
            for chunk in _chunks(scan, number, on_block, with_digest=scan.dataset.manifest is not None):
                pending.append((scan, number))
                yield RowJob(chunk, scan.dataset.key, number)

    task = partial(parse_rows, max_line=MAX_LINE_BYTES, image_refs=any(scan.dataset.media for scan in scans))
    count, imports = _useful_workers(workers, total), [parse_rows.__module__]
    for parsed in pool.run(task, jobs(), count, lambda job: _raise_crash(job.chunk), imports):
        scan, number = pending.popleft()
        scan.add_rows(number, parsed)
    for scan, number in sources:
        scan.end_file(number)


def _count_tokens(
    scans: Sequence[DatasetScan], target: TargetModel, workers: int, progress: Progress, scratch: Path
) -> None:
    total = sum(file.rows - file.bad_rows for scan in scans for file in scan.dataset.files)
    pending: deque[Source] = deque()
    done = 0

    def jobs() -> Iterator[model_worker.ModelJob]:
        for index, scan in enumerate(scans):
            sizes = scratch / f"{index}.npy"
            scan.sizes.save(sizes)
            for number, split in enumerate(split_names(scan.dataset)):
                for chunk in _chunks(scan, number, lambda count: None):
                    pending.append((scan, number))
                    yield model_worker.ModelJob(chunk, scan.dataset.key, layout.is_training(split), str(sizes))

    task = partial(model_worker.check_rows, target=target, max_line=MAX_LINE_BYTES)
    count = _useful_workers(workers, _total_bytes(_sources(scans))[0])
    for found in pool.run(task, jobs(), count, lambda job: _raise_crash(job.chunk), [model_worker.__name__]):
        scan, number = pending.popleft()
        scan.add_model_findings(number, found)
        done += found.rows
        progress(done, total)


def _useful_workers(workers: int, size: int) -> int:
    """Return 0 for input so small that starting a process takes longer than reading it."""
    return workers if size > 2 * CHUNK_BYTES else 0


def _raise_crash(chunk: RowChunk) -> Any:
    raise ConvkitError(
        f"The worker process that read {chunk.path} from line {chunk.first_line} on died, probably out of memory."
    )


def _sources(scans: Sequence[DatasetScan]) -> list[Source]:
    return [(scan, number) for scan in scans for number, _ in enumerate(scan.dataset.files)]


def _total_bytes(sources: Sequence[Source]) -> tuple[int, bool]:
    """Return the size of all row files, and whether they are uncompressed, so that it is what will be read."""
    files = [scan.dataset.files[number].path for scan, number in sources]
    files = [path for path in files if path.is_file()]
    return sum(path.stat().st_size for path in files), all(path.suffix not in layout.COMPRESSED for path in files)


def _chunks(
    scan: DatasetScan, number: int, on_block: Callable[[int], None], *, with_digest: bool = False
) -> Iterator[RowChunk]:
    file = scan.dataset.files[number]
    if not file.path.is_file():
        file.missing = True
        return
    try:
        yield from read_chunks(file, MAX_LINE_BYTES, on_block, with_digest=with_digest)
    except OSError as error:
        raise ConvkitError(f"{file.path} cannot be read: {error.strerror}. Check its permissions.") from None


def _read_images(
    scans: Sequence[DatasetScan], decode: bool, workers: int, progress: Progress, *, keep_sizes: bool
) -> None:
    total = sum(len(scan.image_refs) for scan in scans)
    done = 0
    for scan in scans:

        def add(ref: ImageRef, outcome: ImageInfo | ImageProblem, scan: DatasetScan = scan) -> None:
            nonlocal done
            done += 1
            progress(done, total)
            scan.add_image(ref, outcome)
            if keep_sizes and isinstance(outcome, ImageInfo):
                scan.sizes.add(ref.path, outcome)

        cache = MediaCache(layout.media_cache(scan.images))
        try:
            image_pass.read_images(scan.images, scan.image_refs, add, decode=decode, workers=workers, cache=cache)
        finally:
            cache.close()


def _result(scans: Sequence[DatasetScan], media: Media, target: TargetModel | None, selection: Selection) -> Result:
    receipts: list[Path] = []
    notes: list[str] = []
    for scan in scans:
        if scan.dataset.manifest is None:
            continue
        try:
            if selection.refuses(scan.findings):
                notes += _remove_receipt(scan, selection)
            elif media == "decode":
                new = _receipt(scan, target)
                if receipt.has_other_media(scan.dataset.directory, new):
                    notes.append(f"images changed since the last validation, in the same rows: {scan.images}")
                receipts.append(receipt.write(scan.dataset.directory, new))
        except OSError as error:
            path = scan.dataset.directory / layout.RECEIPT
            notes.append(f"receipt not written or removed: {path}: {error.strerror}")
    findings = selection.apply(finding for scan in scans for finding in scan.findings)
    rows = sum(file.rows for scan in scans for file in scan.dataset.files)
    return Result(report_of(rows, findings), tuple(receipts), tuple(notes))


def _remove_receipt(scan: DatasetScan, selection: Selection) -> Iterator[str]:
    """Remove the receipt of a dataset that has errors, and yield notes about it."""
    path = scan.dataset.directory / layout.RECEIPT
    if path.exists():
        path.unlink()
        yield f"receipt removed: {path}: the dataset does not pass any more"
    if hidden := selection.hidden_errors(scan.findings):
        yield f"receipt not written: {path}: {describe_hidden_errors(hidden)}"


def _receipt(scan: DatasetScan, target: TargetModel | None) -> receipt.Receipt:
    files = scan.dataset.files
    return receipt.Receipt(
        manifest=scan.dataset.manifest_sha256,
        rows={file.path.name: receipt.RowsReceipt(rows=file.rows, sha256=file.sha256) for file in files},
        media=scan.digest.receipt(),
        rules=codes(with_model=target is not None),
        profile=target.spec if target else None,
        options={"media": "decode", **(target.options() if target else {})},
        warnings=dict(sorted(by_code(scan.findings).items())),
    )

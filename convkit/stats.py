"""Compute statistics of a dataset: counts, image sizes, answers, and tokens for a model, in bounded memory.

Rows are streamed. Histograms have a bounded number of bins, and only the first distinct answers are counted; the
result says if there are more.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit import layout
from convkit.dataset import Dataset, read_lines
from convkit.errors import ConvkitError, DatasetError
from convkit.media.images import ImageInfo, inspect_dataset_image
from convkit.profiles import ImageSize, TargetModel, TokenCount, UnsupportedShape
from convkit.schema import SCHEMA_ID, Row
from convkit.utils.callable_module import make_callable
from convkit.utils.progress import Progress

MAX_ANSWERS = 100_000
"""Most distinct answers that are counted."""
MAX_LABELS = 1_000
"""Most distinct answers that are treated as labels, for which the imbalance is computed."""
_EXACT = 10_000
_MAX_TEXT = 200
_SIZE_CACHE = 65_536

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Distribution(BaseModel):
    """A distribution of integers; quantiles are exact below 10,000, and rounded down to three digits above."""

    model_config = _STRICT

    count: int = Field(ge=0, description="Number of values; everything else is 0 if there are none.")
    mean: float
    min: int
    p50: int
    p90: int
    p99: int
    max: int
    bins: dict[str, int] = Field(
        description="Number of values in each bin, by the bounds of the bin: 0, 1, 2-3, 4-7, 8-15, …"
    )


class Tokens(BaseModel):
    """Tokens per row for a model."""

    model_config = _STRICT

    exact: bool = Field(description="False: text tokens are estimated; the true count is between low and high.")
    low: Distribution
    high: Distribution
    refused: int = Field(ge=0, description="Rows with an image shape that the model's processor rejects.")
    unknown: int = Field(ge=0, description="Rows with an image whose size cannot be read.")


class Answer(BaseModel):
    """An answer and its number of occurrences."""

    model_config = _STRICT

    text: str = Field(description="The first 200 characters of the answer.")
    count: int = Field(ge=1)


class Answers(BaseModel):
    """Statistics of the assistant's answers."""

    model_config = _STRICT

    count: int = Field(ge=0, description="Turns with an answer.")
    distinct: int = Field(ge=0, description="Distinct answers; a lower bound if not complete.")
    complete: bool = Field(
        description="False: there are more distinct answers than are counted; `top` covers only the first of them."
    )
    top: list[Answer] = Field(description="The most frequent answers.")
    imbalance: float | None = Field(
        description="Count of the most frequent answer divided by that of the rarest; null if there are too many "
        "distinct answers to be labels."
    )


class SplitStats(BaseModel):
    """Statistics of one row file."""

    model_config = _STRICT

    file: str
    rows: int = Field(ge=0, description="Valid rows; all statistics cover only these.")
    unsound: int = Field(ge=0, description="Lines that are not a valid row.")
    turns: Distribution = Field(description="Turns per row.")
    images: Distribution = Field(description="Images per row.")
    unreadable: int = Field(ge=0, description="Image references whose header cannot be read.")
    width: Distribution = Field(description="Pixels, per image reference.")
    height: Distribution = Field(description="Pixels, per image reference.")
    text: Distribution = Field(description="Characters per row: system prompt, user and assistant.")
    tokens: Tokens | None = Field(description="Null without a model.")
    answers: Answers


class Stats(BaseModel):
    """The result of `convkit stats --format json`."""

    model_config = ConfigDict(**_STRICT, title="convkit stats", json_schema_extra={"$id": f"{SCHEMA_ID}:stats"})

    stats_version: Literal[1] = Field(default=1, description="The version of this format.")
    model: str | None = Field(description="The token profile, with its options.")
    splits: list[SplitStats]

    @property
    def complete(self) -> bool:
        """Return whether all rows and images could be read."""
        return not any(split.unsound or split.unreadable for split in self.splits)


class Histogram:
    """A histogram of integers with a bounded number of bins."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._sum = self._max = 0
        self._min: int | None = None

    def add(self, number: int) -> None:
        """Add a number of 0 or more."""
        self._sum += number
        self._max = max(self._max, number)
        self._min = number if self._min is None else min(self._min, number)
        step = 10 ** max(len(str(number)) - 3, 0) if number >= _EXACT else 1
        self._bins[number // step * step] += 1

    def distribution(self) -> Distribution:
        """Return the distribution of the added numbers."""
        ordered = sorted(self._bins.items())
        count = sum(self._bins.values())
        bins: Counter[int] = Counter()
        for number, times in ordered:
            bins[number.bit_length()] += times
        p50, p90, p99 = (_quantile(ordered, count, percent) for percent in (50, 90, 99))
        return Distribution(
            count=count,
            mean=round(self._sum / count, 3) if count else 0.0,
            min=self._min or 0,
            p50=p50,
            p90=p90,
            p99=p99,
            max=self._max,
            bins={_bounds(bits): times for bits, times in sorted(bins.items())},
        )


def _quantile(ordered: list[tuple[int, int]], count: int, percent: int) -> int:
    """Return the smallest number that this percentage of numbers does not exceed."""
    seen = 0
    for number, times in ordered:
        seen += times
        if seen * 100 >= count * percent:
            return number
    return 0


def _bounds(bits: int) -> str:
    return str(bits) if bits < 2 else f"{1 << (bits - 1)}-{(1 << bits) - 1}"


class _Answers:
    """Counts answers; long ones are stored as a digest, to bound memory."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._count = 0
        self._complete = True

    def add(self, text: str) -> None:
        self._count += 1
        key = text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + blake2b(text.encode(), digest_size=16).hexdigest()
        if key in self._counts or len(self._counts) < MAX_ANSWERS:
            self._counts[key] += 1
        else:
            self._complete = False

    def result(self, top: int) -> Answers:
        counts = self._counts
        labels = self._complete and 1 < len(counts) <= MAX_LABELS and len(counts) < self._count
        return Answers(
            count=self._count,
            distinct=len(counts),
            complete=self._complete,
            top=[Answer(text=text[:_MAX_TEXT], count=times) for text, times in counts.most_common(top)],
            imbalance=round(max(counts.values()) / min(counts.values()), 3) if labels else None,
        )


class _Tokens:
    """Token histograms of a split."""

    def __init__(self, target: TargetModel) -> None:
        self._target = target
        self._low, self._high = Histogram(), Histogram()
        self._refused = self._unknown = 0

    def add(self, row: Row, sizes: list[ImageSize | None]) -> None:
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            self._unknown += 1
            return
        try:
            count: TokenCount = self._target.count(row, known)
        except UnsupportedShape:
            self._refused += 1
        else:
            self._low.add(count.low)
            self._high.add(count.high)

    def result(self) -> Tokens:
        low, high = self._low.distribution(), self._high.distribution()
        exact = self._target.tokenizer is not None
        return Tokens(exact=exact, low=low, high=high, refused=self._refused, unknown=self._unknown)


class _Split:
    """All counters of one row file."""

    def __init__(self, images: Path, target: TargetModel | None) -> None:
        self._histograms = {name: Histogram() for name in ("turns", "images", "width", "height", "text")}
        self._answers = _Answers()
        self._tokens = _Tokens(target) if target else None
        self._size = lru_cache(_SIZE_CACHE)(lambda path: _size(images, path))
        self._rows = self._invalid = self._unreadable = 0

    def line(self, raw: bytes) -> None:
        try:
            row = Row.model_validate_json(raw)
        except ValidationError:
            self._invalid += 1
        else:
            self._row(row)

    def _row(self, row: Row) -> None:
        self._rows += 1
        sizes = [self._size(path) for turn in row.conversations for path in turn.images]
        for size in sizes:
            if size is None:
                self._unreadable += 1
            else:
                self._histograms["width"].add(size.width)
                self._histograms["height"].add(size.height)
        answers = [turn.assistant for turn in row.conversations if turn.assistant is not None]
        for answer in answers:
            self._answers.add(answer)
        texts = [row.system or "", *(turn.user for turn in row.conversations), *answers]
        self._histograms["text"].add(sum(map(len, texts)))
        self._histograms["turns"].add(len(row.conversations))
        self._histograms["images"].add(len(sizes))
        if self._tokens:
            self._tokens.add(row, sizes)

    def result(self, file: str, top: int) -> SplitStats:
        return SplitStats(
            file=file,
            rows=self._rows,
            unsound=self._invalid,
            unreadable=self._unreadable,
            tokens=self._tokens.result() if self._tokens else None,
            answers=self._answers.result(top),
            **{name: histogram.distribution() for name, histogram in self._histograms.items()},
        )


def _size(images: Path, path: str) -> ImageSize | None:
    outcome = inspect_dataset_image(images, False, path)
    return ImageSize(outcome.width, outcome.height) if isinstance(outcome, ImageInfo) else None


class _ByteProgress:
    """Report progress in bytes over all row files."""

    def __init__(self, files: list[Path], progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0
        self._total = sum(file.stat().st_size for file in files)

    def __call__(self, block: memoryview) -> None:
        self._done += len(block)
        if self._progress:
            self._progress(self._done, self._total)


def compute_stats(
    path: Path, target: TargetModel | None = None, *, model: str = "", top: int = 10, progress: Progress | None = None
) -> Stats:
    """Compute statistics of all rows, and of the headers of their images.

    Args:
        path: a dataset directory, a directory with row files, or a row file.
        target: the model to count tokens for.
        model: the name of the model in the result.
        top: number of most frequent answers to list.
        progress: called with the bytes read so far, and the total.

    Raises:
        ConvkitError: the path is missing, there are no row files, or one cannot be read.
    """
    try:
        files = _files(path)
        meter = _ByteProgress(files, progress)
        splits = list(_splits(files, target, top, meter))
    except OSError as error:
        raise ConvkitError(
            f"{error.filename or path} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from None
    return Stats(model=model or None, splits=splits)


def _splits(files: list[Path], target: TargetModel | None, top: int, meter: _ByteProgress) -> Iterator[SplitStats]:
    for file in files:
        split = _Split(file.parent / layout.IMAGES, target)
        for line in read_lines(file, on_block=meter):
            split.line(line.raw)
        yield split.result(file.name, top)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if not layout.is_row_file(path):
            raise ConvkitError(
                f"{path} is not a row file (*.jsonl, also .gz or .zst). Give one, or a dataset directory."
            )
        return [path]
    if (path / layout.MANIFEST).exists():
        dataset = Dataset.open(path)
        files = list(dict.fromkeys(dataset.path(split) for split in dataset.manifest.splits))
    else:
        files = layout.row_files(path)
    if not files:
        raise DatasetError(f"{path} has no row files (*{layout.ROWS_SUFFIX}). Give a dataset directory or a row file.")
    return files


make_callable(__name__)

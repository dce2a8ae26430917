"""Write a dataset directory from a Python loop, with the guarantees of a conversion."""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from convkit.convert.error_budget import Budget, OnError, Policy, RejectSummary, default_budget
from convkit.convert.finalize import finalize
from convkit.convert.journal import Outcome, extend_digest
from convkit.convert.names import NameRegistry
from convkit.convert.output_dir import OutputDirectory
from convkit.convert.worker import convert_entry
from convkit.converters.base import Converter, Item, Options, Record, Reject, first_problem
from convkit.converters.class_items import DatasetName
from convkit.converters.image_store import ImageOptions, StoredImage, store_image
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError, ItemError, SourceError
from convkit.schema import Manifest, Row
from convkit.sources import Source

_NOT_IN_PNG = ("CMYK", "YCbCr", "LAB")
"""PIL modes that PNG does not have."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class DatasetWriter:
    """Write a dataset directory row by row; use it in a `with` statement.

    Rows and images are checked and stored as by a converter: what cannot become a row is quarantined with its reason.
    The directory is complete when the block ends. After an exception or a kill, run the same loop again: rows that are
    already written are compared and skipped, and the result is byte-identical.

    Example:
        with DatasetWriter("data", name="receipts") as writer:
            for number, (image, text) in enumerate(receipts):
                writer.add(f"r{number}", [{"images": [image], "user": "Read the text.", "assistant": text}])

    Args:
        out_dir: new, empty, or the directory of an interrupted loop.
        name: the dataset's name.
        max_errors: stop if more rows than this are quarantined: a number, or a share such as "5%". Default: 100.
        on_error: "fail" stops at the first row that cannot be written.

    Raises:
        DatasetError: `out_dir` holds something else, or the loop gives other rows than the interrupted one.
        ConvkitError: more was quarantined than allowed, or an argument is invalid.
    """

    def __init__(
        self,
        out_dir: str | os.PathLike[str],
        name: str,
        *,
        max_errors: int | str | None = None,
        on_error: OnError = "quarantine",
    ) -> None:
        self._out_dir = Path(out_dir)
        options = _writer_options(name)
        self._converter = _RowsFromPython(self._out_dir, options)
        self._output = OutputDirectory(self._out_dir, _RowsFromPython, options, None)
        budget = default_budget(_RowsFromPython) if max_errors is None else Budget.parse(str(max_errors))
        self._policy = Policy(on_error, budget)
        self._budget = budget
        self._names = NameRegistry(self._output.images)
        self._rejects = RejectSummary()
        self._stack = ExitStack()
        self._recovered: Iterator[tuple[str, tuple[Outcome, ...]]] = iter(())
        self._complete: Manifest | None = None
        self._digest = ""
        self._rows = 0
        self._entered = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # if this fails, the directory is not left locked
            self._complete = stack.enter_context(self._output.completed_or_locked())
            if self._complete is None:
                self._output.adopt(self._converter, self._source())
                self._output.scratch.mkdir(exist_ok=True)
                stack.enter_context(closing(self._output.journal))
                self._recovered = self._output.journal.recover()
            self._stack = stack.pop_all()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered = False
        with self._stack:
            if error is None:
                self._finish()
            else:
                self._stack.__exit__(kind, error, traceback)

    def add(
        self,
        id: str,
        turns: Sequence[Mapping[str, Any]],
        *,
        split: str = "train",
        system: str | None = None,
        group: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Reject | None:
        """Write one row with its images.

        Args:
            turns: the keys of `convkit.Turn`; `images` holds files, encoded bytes, PIL images or
                (H, W, 3) uint8 arrays.
            group: rows of one group stay together in `convkit split`.

        Returns:
            None, or why the row was quarantined. If the dataset is complete already, rows are only compared: None.

        Raises:
            ConvkitError: more was quarantined than allowed, or this is outside of the `with` block.
            DatasetError: an interrupted loop gave another row here.
            TypeError: `images` is not a list of supported types.
        """
        if not self._entered:
            raise ConvkitError("Add rows in the `with` block of a DatasetWriter.")
        fields = {"id": id, "system": system, "group": group, "metadata": metadata and dict(metadata)}
        item = _make_item(self._rows, split, fields, turns)
        self._rows += 1
        self._digest = extend_digest(self._digest, item)
        if self._complete is not None:
            return None
        return self._count(self._outcomes(item))

    def _outcomes(self, item: "_RowItem") -> tuple[Outcome, ...]:
        """Return the outcomes in the journal of an interrupted loop, or write the row."""
        if recovered := next(self._recovered, None):
            digest, outcomes = recovered
            if digest != self._digest:
                raise DatasetError(
                    f"{self._out_dir} holds an interrupted loop that gave another row {self._rows}. Run the same loop "
                    "again, or remove the directory and start again."
                )
            for outcome in outcomes:
                self._names.restore(outcome)
            return outcomes
        staged = convert_entry(self._converter, self._output.scratch, item)
        outcomes = self._names.reserve(staged, item.address)
        self._output.journal.append(self._digest, outcomes)
        return outcomes

    def _count(self, outcomes: tuple[Outcome, ...]) -> Reject | None:
        reject = next((outcome for outcome in outcomes if isinstance(outcome, Reject)), None)
        if reject:
            self._rejects.add(reject)
            if self._policy.on_error == "fail":
                raise SourceError(f"{reject.address}: {reject.reason} ({reject.rule}; on_error='fail')")
        self._check_budget(complete=False)
        return reject

    def _check_budget(self, *, complete: bool) -> None:
        if self._budget.exceeded(self._rejects.units, self._rows, complete=complete):
            raise ConvkitError(
                f"{self._rejects.units} of {self._rows} rows could not be written, more than max_errors allows. "
                f"{self._rejects.describe()}"
            )

    def _finish(self) -> None:
        if self._complete is not None:
            if self._complete.source.fingerprint != self._digest:
                raise DatasetError(f"{self._out_dir} holds a complete dataset of other rows. Choose another out_dir.")
            return
        if next(self._recovered, None):
            raise DatasetError(
                f"{self._out_dir} holds an interrupted loop that gave more rows than this one. Run the same loop "
                "again, or remove the directory and start again."
            )
        self._check_budget(complete=True)
        if not self._names.has_rows:
            raise SourceError(f"{self._out_dir} got no row. {self._rejects.describe()}".rstrip())
        finalize(self._converter, self._source(), self._digest, self._output)

    def _source(self) -> Source:
        return Source(self._out_dir, "python", None)

    @property
    def dataset(self) -> Dataset:
        """The dataset, once the block has ended."""
        return Dataset.open(self._out_dir)


class _WriterOptions(Options):
    name: DatasetName


def _writer_options(name: str) -> _WriterOptions:
    try:
        return _WriterOptions(name=name)
    except ValidationError as error:
        raise ConvkitError(f"{first_problem(error)}.") from None


@dataclass(frozen=True)
class _RowItem(Item):
    """One row; the digest covers everything that its result depends on."""

    digest: str
    split: str = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    turns: Sequence[Mapping[str, Any]] = field(repr=False)
    images: Sequence[Sequence[bytes | Path]] = field(repr=False)
    image_error: str = field(repr=False)
    """Why an image in memory cannot be encoded; empty if all can be."""


class _RowsFromPython(Converter[_RowItem]):
    """Turn rows with images in memory into rows with image paths."""

    name, unit, version = "python", "row", 1
    Options = _WriterOptions
    options: _WriterOptions

    @property
    def dataset_name(self) -> str:
        return self.options.name

    def items(self) -> Iterator[_RowItem]:
        """Yield nothing: rows are given to `DatasetWriter.add`."""
        return iter(())

    def convert(self, item: _RowItem) -> Record:
        """Store the images, and name them after the row."""
        if item.image_error:
            raise ItemError("undecodable-image", item.image_error)
        stored: list[list[StoredImage]] = []
        stem = _stem(item)
        for images in item.images:
            first = sum(map(len, stored))
            stored.append([store_image(image, f"{stem}.{first + k}", ImageOptions()) for k, image in enumerate(images)])
        turns = [
            {**turn, "images": [image.path for image in images]}
            for turn, images in zip(item.turns, stored, strict=True)
        ]
        row = Row.model_validate(
            {"source": self.dataset_name, "conversations": turns}
            | {name: value for name, value in item.fields.items() if value is not None}
        )
        try:
            row.to_line()
        except ValueError:
            raise ItemError("invalid-row", "a text has a lone surrogate, which UTF-8 cannot encode") from None
        flat = [image for images in stored for image in images]
        return Record(
            item.split,
            (row,),
            {image.path: image.content for image in flat},
            notes=tuple(note for image in flat for note in image.notes),
        )


def _stem(item: _RowItem) -> str:
    """Return the path of a row's images without number and suffix."""
    id = str(item.fields["id"])
    name = id if _FILE_NAME.fullmatch(id) else hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{item.split}/{name}"


def _make_item(number: int, split: str, fields: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> _RowItem:
    """Return a row's item, with its images as files or encoded bytes."""
    images: list[list[bytes | Path]] = []
    image_error = ""
    try:
        images = [[_encoded(image) for image in _image_list(turn)] for turn in turns]
    except (OSError, ValueError) as error:  # such as a truncated file that PIL reads only now
        image_error = f"the image cannot be encoded: {error}"
    texts = [{name: value for name, value in turn.items() if name != "images"} for turn in turns]
    digest = hashlib.sha256(json.dumps([split, fields, texts, image_error], default=_stable_repr).encode())
    for image in (image for pictures in images for image in pictures):
        digest.update(hashlib.sha256(_bytes(image)).digest())
    return _RowItem(f"row {number + 1}", digest.hexdigest(), split, fields, texts, images, image_error)


def _stable_repr(value: Any) -> str:
    """Return the representation of a value that JSON does not have, without its address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _image_list(turn: Mapping[str, Any]) -> Sequence[Any]:
    images = turn.get("images", ())
    if not isinstance(images, list | tuple):
        raise TypeError(f"images is a list, not {type(images).__name__}")
    return images


def _encoded(image: Any) -> bytes | Path:
    """Return an image as encoded bytes or as a file.

    Raises:
        TypeError: the type is not supported.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image)
    from PIL import Image

    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"an image is a path, bytes, a PIL image or a uint8 array, not {type(image).__name__}")
    buffer = io.BytesIO()
    if image.mode in _NOT_IN_PNG:
        image.save(buffer, "TIFF")
    else:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _bytes(image: bytes | Path) -> bytes:
    """Return the bytes to hash; those of a missing file are its path, and the row will be quarantined."""
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError:
        return os.fsencode(image)

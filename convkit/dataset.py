"""Read a dataset: the lines of a row file, or the rows of a dataset directory, as streams.

Independent of the rules: `convkit.validate` reads lines and reports all problems; everyone else reads rows and stops at
the first invalid one.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

from pydantic import ValidationError
from pydantic_core import from_json

from convkit import layout
from convkit.errors import DatasetError
from convkit.schema import FORMAT_VERSION, Manifest, Row
from convkit.utils.compressed import open_rows
from convkit.utils.json_file import first_problem
from convkit.utils.progress import no_progress_bar, progress_bar

if TYPE_CHECKING:
    import datasets

    from convkit.train.data.torch_dataset import TorchDataset

MAX_LINE_BYTES = 16 * 2**20
_BLOCK_BYTES = 64 * 2**10


class Line(NamedTuple):
    """One line of a row file."""

    number: int
    """The line number, from 1."""
    raw: bytes
    """The line without its line feed; a carriage return stays, as JSON's white space. Empty if overlong."""
    overlong: bool


def read_lines(
    path: Path, max_bytes: int = MAX_LINE_BYTES, on_block: Callable[[memoryview], object] | None = None
) -> Iterator[Line]:
    """Yield the lines of a file in constant memory, whatever their length.

    Args:
        max_bytes: longer lines are skipped, and yielded as an empty line marked overlong.
        on_block: called with each block of about 64 KiB as it is read, for a digest or a progress bar.

    Raises:
        OSError: the file cannot be read.
    """
    with open_rows(path) as opened, io.BufferedReader(_Observed(opened, on_block), _BLOCK_BYTES) as file:
        number = 0
        while raw := file.readline(max_bytes + 1):
            number += 1
            if raw.endswith(b"\n"):
                yield Line(number, raw[:-1], False)
            elif len(raw) <= max_bytes:
                yield Line(number, raw, False)
            else:
                _skip_line(file)
                yield Line(number, b"", True)


def _skip_line(file: BinaryIO) -> None:
    while (part := file.readline(_BLOCK_BYTES)) and not part.endswith(b"\n"):
        pass


class _Observed(io.RawIOBase):
    """A stream that passes every block to a callback, so that a digest needs no second read."""

    def __init__(self, stream: BinaryIO, on_block: Callable[[memoryview], object] | None) -> None:
        self._stream, self._on_block = stream, on_block

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        if self._on_block:
            self._on_block(memoryview(buffer)[:count])
        return count


class Dataset:
    """A dataset directory that has a manifest."""

    def __init__(self, directory: Path, manifest: Manifest, manifest_sha256: str) -> None:
        self.directory = directory
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a dataset directory by reading its manifest.

        Raises:
            DatasetError: the manifest is missing, cannot be read, or is not of this format version.
        """
        path = directory / layout.MANIFEST
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise DatasetError(_no_manifest(directory)) from None
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            raise DatasetError(f"{path} {_not_a_manifest(content, error)}") from None
        return cls(directory, manifest, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        """The name of the dataset, from its manifest."""
        return self.manifest.name

    @property
    def images(self) -> Path:
        """The folder that image paths of rows are relative to."""
        return self.directory / layout.IMAGES

    @property
    def splits(self) -> "dict[str, SplitRows]":
        """The rows of each split, by its name."""
        return {name: self[name] for name in self.manifest.splits}

    def __getitem__(self, split: str) -> "SplitRows":
        """Return the rows of a split.

        Raises:
            DatasetError: there is no such split; the message lists the known ones.
        """
        self.path(split)
        return SplitRows(self, split)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows of all splits."""
        return (row for rows in self.splits.values() for row in rows)

    def __len__(self) -> int:
        """Return the number of rows, from the manifest."""
        return sum(split.rows for split in self.manifest.splits.values())

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {split.rows:,} rows" for name, split in self.manifest.splits.items())
        return f"<convkit.Dataset {self.name!r} in {str(self.directory)!r}: {splits}>"

    def path(self, split: str) -> Path:
        """Return the path of a split's row file.

        Raises:
            DatasetError: there is no such split; the message lists the known ones.
        """
        if split not in self.manifest.splits:
            known = ", ".join(self.manifest.splits) or "none"
            raise DatasetError(f"{self.directory} has no split {split!r}. Choose one of: {known}.")
        return self.directory / self.manifest.splits[split].file

    def rows(self, split: str) -> Iterator[tuple[str, Row]]:
        """Yield (file:line, row) for each row of a split, in order.

        Raises:
            DatasetError: there is no such split, its file cannot be read, or a row is invalid.
        """
        path = self.path(split)
        try:
            for line in read_lines(path):
                yield f"{path}:{line.number}", _row(path, line)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be read ({error.strerror}). Restore the file or convert the source again."
            ) from None

    def to_hf(self, cache_dir: str | os.PathLike[str] | None = None) -> "datasets.DatasetDict":
        """Convert to a `datasets.DatasetDict` of Hugging Face; rows are streamed into Arrow files.

        Columns: `id`, `source`, `group`; `images`, decoded when they are read from their files; `messages` in TRL's
        conversational format, `answers` per turn, and `metadata` as JSON.

        Args:
            cache_dir: the folder for Arrow files; None for that of `datasets`. A changed dataset is converted again.

        Raises:
            MissingExtra: the package datasets is not installed.
        """
        from convkit.huggingface import to_hf

        return to_hf(self, None if cache_dir is None else Path(cache_dir))

    def to_torch(
        self,
        model: str | os.PathLike[str],
        split: str = "train",
        *,
        max_tokens: int | None = None,
        drop_overlong: bool = False,
        num_crops: int | None = None,
        require_receipt: bool = True,
        progress: bool = False,
    ) -> "TorchDataset":
        """Return a split as a map-style PyTorch dataset of the tokens, labels and images that convkit trains on.

        Pass it as `train_dataset` to the Trainer of transformers or TRL, and its `collate` method as `data_collator`.

        Args:
            model: a checkpoint directory.
            max_tokens: longer rows are an error; None for no limit.
            drop_overlong: leave out longer rows instead.
            num_crops: the maximum number of crops per image, for Phi-3-vision only.
            require_receipt: refuse a dataset without a current receipt for this model, as `convkit train` does.

        Raises:
            DatasetError: the split or the receipt is missing, or a row is too long.
            ConvkitError: the checkpoint cannot be read, or a row does not fit the model.
        """
        from convkit.utils.silence import silence_libraries

        silence_libraries()
        from convkit.train.data.torch_dataset import TorchDataset

        return TorchDataset(
            self,
            Path(model),
            split,
            max_tokens=max_tokens,
            drop_overlong=drop_overlong,
            num_crops=num_crops,
            require_receipt=require_receipt,
            bars=progress_bar if progress else no_progress_bar,
        )


class SplitRows:
    """The rows of one split: iterable, with a length."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, in order.

        Raises:
            DatasetError: the row file cannot be read, or a row is invalid.
        """
        return (row for _, row in self.dataset.rows(self.name))

    def __len__(self) -> int:
        """Return the number of rows, from the manifest."""
        return self.dataset.manifest.splits[self.name].rows

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of split {self.name!r} in {str(self.dataset.directory)!r}>"


def _row(path: Path, line: Line) -> Row:
    try:
        return Row.model_validate_json(line.raw)
    except ValidationError as error:
        reason = f"the line is longer than {MAX_LINE_BYTES:,} bytes" if line.overlong else first_problem(error)
    raise DatasetError(
        f"{path}:{line.number} is not a valid row: {reason}. Run `convkit validate {path.parent}` to see all findings."
    )


def _no_manifest(directory: Path) -> str:
    if (directory / layout.WORK).is_dir():
        return f"The conversion into {directory} is not finished. Run the same convert command again to resume it."
    return f"{directory} has no {layout.MANIFEST}. Pass a dataset directory that convkit convert wrote."


def _not_a_manifest(content: bytes, error: ValidationError) -> str:
    version = _format_version(content)
    if isinstance(version, int) and version > FORMAT_VERSION:
        return f"is of format version {version}; this convkit reads version {FORMAT_VERSION}. Upgrade convkit-vlm."
    return f"is not a manifest: {first_problem(error)}. Restore the file or convert the source again."


def _format_version(content: bytes) -> Any:
    try:
        manifest = from_json(content)
    except ValueError:
        return None
    return manifest.get("format_version") if isinstance(manifest, dict) else None

"""Open the datasets of the paths that the user gave."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from convkit import layout
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.rules.base import DatasetFiles, RowFile

MAX_STDIN_BYTES = 16 * 2**30
"""Maximum size of standard input, which is copied to the temporary folder; enough for 20 million rows."""
_BLOCK_BYTES = 2**20
_ROW_FILE = f"a row file (*{layout.ROWS_SUFFIX}, also {' or '.join(layout.COMPRESSED)})"


@contextmanager
def open_datasets(paths: Sequence[Path]) -> Iterator[list[DatasetFiles]]:
    """Yield the datasets of the paths; standard input is kept in a temporary file until the context ends."""
    with TemporaryDirectory(prefix="convkit-") as scratch:
        found: dict[Path, DatasetFiles] = {}
        # Directories first: a file inside a given directory belongs to that dataset.
        for path in sorted(paths, key=lambda path: not path.is_dir()):
            home = (path if path.is_dir() else path.parent).resolve()
            if path.is_dir():
                if home not in found:
                    found[home] = _directory(path)
            else:
                _add_file(found.setdefault(home, DatasetFiles(path.parent, [])), path, Path(scratch))
        yield list(found.values())


def _directory(path: Path) -> DatasetFiles:
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
            f"{path} has no row files (*{layout.ROWS_SUFFIX}). Give a directory that convkit convert "
            "wrote, or a row file."
        )
    if dataset is None:
        return DatasetFiles(path, files, whole=True)
    return DatasetFiles(path, files, dataset.manifest, dataset.manifest_sha256, whole=True)


def _add_file(dataset: DatasetFiles, path: Path, scratch: Path) -> None:
    if str(path) == layout.STDIN:
        dataset.files.append(_standard_input(scratch))
        return
    if not path.exists():
        raise ConvkitError(f"{path} does not exist. Give {_ROW_FILE} or a dataset directory.")
    if not path.is_file() or not layout.is_row_file(path):
        raise ConvkitError(f"{path} is not {_ROW_FILE}. Give one, or a dataset directory.")
    if all(file.path.name != path.name for file in dataset.files):
        dataset.files.append(RowFile(path))


def _standard_input(scratch: Path) -> RowFile:
    """Copy standard input to a file, because rows with suspected duplicate ids are read twice.

    Raises:
        ConvkitError: standard input is closed, too large, or the disk is full.
    """
    if sys.stdin is None:
        raise ConvkitError("Standard input is closed. Pipe rows into it, or name a row file.")
    path, remaining = scratch / f"stdin{layout.ROWS_SUFFIX}", MAX_STDIN_BYTES
    remedy = "Write the rows to a file and pass its name."
    try:
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(_BLOCK_BYTES):
                remaining -= len(block)
                if remaining < 0:
                    raise ConvkitError(f"Standard input has more than {MAX_STDIN_BYTES:,} bytes. {remedy}")
                file.write(block)
    except OSError as error:
        raise ConvkitError(
            f"Standard input cannot be copied to {scratch.parent} ({error.strerror}). {remedy}"
        ) from None
    return RowFile(path, label="<stdin>")

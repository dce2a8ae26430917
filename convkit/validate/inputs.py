"""From the paths that were given to the data sets that they are."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from convkit import layout
from convkit.dataset import Dataset
from convkit.errors import ConvkitError, DatasetError
from convkit.rules.base import Corpus, RowFile

Target = tuple[Corpus, Dataset | None]
MAX_STDIN_BYTES = 16 * 2**30
"""Of rows on standard input, which need as much room in the temporary folder; 20 million rows are fewer."""
_BLOCK_BYTES = 2**20
_ROW_FILE = f"a row file (*{layout.ROWS_SUFFIX}, also {' or '.join(layout.COMPRESSED)})"


@contextmanager
def data_sets(paths: Sequence[Path]) -> Iterator[list[Target]]:
    """The data sets of some paths; standard input is kept in a temporary file as long as they are used."""
    with TemporaryDirectory(prefix="convkit-") as scratch:
        found: dict[Path, Target] = {}
        # Directories first: a file of a directory that is given as well belongs to its data set.
        for path in sorted(paths, key=lambda path: not path.is_dir()):
            home = (path if path.is_dir() else path.parent).resolve()
            if path.is_dir():
                if home not in found:
                    found[home] = _directory(path)
            else:
                corpus, _ = found.setdefault(home, (Corpus(path.parent, []), None))
                _add_file(corpus, path, Path(scratch))
        yield list(found.values())


def _directory(path: Path) -> Target:
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


def _add_file(corpus: Corpus, path: Path, scratch: Path) -> None:
    if str(path) == layout.STDIN:
        corpus.files.append(_standard_input(scratch))
        return
    if not path.exists():
        raise ConvkitError(f"{path} does not exist. Give {_ROW_FILE} or a dataset directory.")
    if not path.is_file() or not layout.is_row_file(path):
        raise ConvkitError(f"{path} is not {_ROW_FILE}. Give one, or a dataset directory.")
    if all(file.path.name != path.name for file in corpus.files):
        corpus.files.append(RowFile(path))


def _standard_input(scratch: Path) -> RowFile:
    """Standard input as a file: it is read twice where two ids may be equal.

    Raises:
        ConvkitError: it is closed, too large, or there is no room for it.
    """
    if sys.stdin is None:
        raise ConvkitError("Standard input is closed. Send rows to it, or name a row file.")
    path, left = scratch / f"stdin{layout.ROWS_SUFFIX}", MAX_STDIN_BYTES
    remedy = "Write the rows into a file and name it."
    try:
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(_BLOCK_BYTES):
                left -= len(block)
                if left < 0:
                    raise ConvkitError(f"Standard input has more than {MAX_STDIN_BYTES:,} bytes. {remedy}")
                file.write(block)
    except OSError as error:
        raise ConvkitError(f"Standard input cannot be kept in {scratch.parent} ({error.strerror}). {remedy}") from None
    return RowFile(path, label="<stdin>")

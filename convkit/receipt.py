"""The receipt: proof that a dataset directory passed, bound to the bytes that did.

It holds digests instead of a time stamp, so the same data set has the same receipt wherever it is validated, and a
change of a single byte shows.
"""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit import __version__, layout
from convkit.errors import DatasetError
from convkit.files import write_atomic
from convkit.schema import Count, Sha256

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class RowsReceipt(BaseModel):
    """One row file."""

    model_config = _STRICT

    rows: Count
    sha256: Sha256


class MediaReceipt(BaseModel):
    """All media that rows name, each counted once."""

    model_config = _STRICT

    files: Count
    bytes: Count
    digest: Sha256 = Field(
        description="SHA-256 over one line for each file, path NUL sha256, in the order in which rows first name them."
    )


class Receipt(BaseModel):
    """receipt.json: what was read, and by which rules it passed."""

    model_config = _STRICT

    receipt_version: Literal[1] = 1
    format_version: Literal[1] = 1
    convkit: str = Field(default=__version__, description="The version that validated.")
    manifest: Sha256 = Field(description="Digest of dataset.json.")
    rows: dict[str, RowsReceipt] = Field(description="By file name.")
    media: MediaReceipt
    rules: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="The codes of all rules that were run.")
    warnings: dict[str, Count] = Field(description="Number of findings of severity warning, by rule.")


class MediaDigest:
    """Sums up media in the order in which they are added."""

    def __init__(self) -> None:
        self._files = self._bytes = 0
        self._digest = hashlib.sha256()

    def add(self, path: str, size: int, sha256: str) -> None:
        """Add a file by its path as rows spell it."""
        self._files += 1
        self._bytes += size
        self._digest.update(f"{path}\0{sha256}\n".encode())

    def receipt(self) -> MediaReceipt:
        """The sum so far."""
        return MediaReceipt(files=self._files, bytes=self._bytes, digest=self._digest.hexdigest())


def write(directory: Path, receipt: Receipt) -> Path:
    """Put the receipt into a dataset directory; a reader sees the old one or the new one, never a part.

    Raises:
        OSError: the directory cannot be written.
    """
    path = directory / layout.RECEIPT
    with TemporaryDirectory(prefix=f".{layout.RECEIPT}.", dir=directory) as scratch:
        write_atomic(path, receipt.model_dump_json(indent=2).encode() + b"\n", Path(scratch))
    return path


def read(directory: Path) -> Receipt:
    """The receipt of a dataset directory, as it stands there: nothing is compared with the data.

    Raises:
        DatasetError: there is none, or it is not a receipt that this version knows.
    """
    path = directory / layout.RECEIPT
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). Run: convkit validate {directory}") from None
    except ValidationError:
        raise DatasetError(f"{path} is not a receipt of this version. Run: convkit validate {directory}") from None

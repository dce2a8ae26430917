"""The receipt: proof that a dataset directory passed, bound to the bytes that did.

It holds digests instead of a time stamp, so the same data set has the same receipt wherever it is validated, and a
change of a single byte shows. Whether a data set may be trained on is asked in one place: `require`.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from convkit import __version__, layout
from convkit.dataset import Dataset, read_lines
from convkit.errors import DatasetError
from convkit.media.cache import MediaCache, file_stamp
from convkit.rules.registry import codes
from convkit.schema import Count, Sha256
from convkit.utils.digests import DigestSet, from_bytes, new_key, packed_digests
from convkit.utils.files import write_atomic

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
    profile: str | None = Field(default=None, description="The model whose limits were checked as well.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="What has a bearing on what was found.")
    warnings: dict[str, Count] = Field(description="Number of findings of severity warning, by rule.")
    digest: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="SHA-256 over all the rest, as JSON.")

    def sealed(self) -> Self:
        """The receipt with its own digest, so that an edited one shows."""
        return self.model_copy(update={"digest": self._own_digest()})

    @property
    def whole(self) -> bool:
        """It is as it was sealed."""
        return self.digest == self._own_digest()

    def _own_digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"digest"}).encode()).hexdigest()


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
        write_atomic(path, receipt.sealed().model_dump_json(indent=2).encode() + b"\n", Path(scratch))
    return path


def read(directory: Path, profile: str | None = None) -> Receipt:
    """The receipt of a dataset directory, as it stands there: nothing is compared with the data.

    Args:
        profile: the model that the remedy of an error names.

    Raises:
        DatasetError: there is none, it was edited, or it is not a receipt that this version knows.
    """
    path, run = directory / layout.RECEIPT, _run(directory, profile)
    if not directory.is_dir():
        raise DatasetError(f"There is no directory {directory}. Name a dataset directory, as convkit convert makes it.")
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError(
            f"{directory} has no {layout.RECEIPT}: it was not validated, or did not pass. {run}"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). {run}") from None
    except ValidationError:
        raise DatasetError(f"{path} is not a receipt of this version. {run}") from None
    if not receipt.whole:
        raise DatasetError(f"{path} was edited: its own digest is not that of its content. {run}")
    return receipt


def has_other_media(directory: Path, new: Receipt) -> bool:
    """Whether the receipt that is there is of the same manifest and rows, but not of the same images.

    Sound images that change places are all sound: nothing else tells.
    """
    try:
        old = read(directory)
    except DatasetError:
        return False
    return (old.manifest, old.rows) == (new.manifest, new.rows) and old.media != new.media


def require(directory: Path, profile: str | None = None) -> Receipt:
    """The receipt of a dataset directory that may be trained on: it passed, and not a byte has changed since.

    Row files are read again; of media only those that the cache does not know as unchanged.

    Args:
        profile: the model that is to be trained; its limits must have been checked as well.

    Raises:
        DatasetError: it may not; the message says why, and the command that mends it.
    """
    receipt, dataset = read(directory, profile), Dataset.open(directory)
    why = _other_question(receipt, profile) or _other_rows(receipt, dataset)
    if why is None and _media(dataset) != receipt.media:
        why = "images have changed since it was validated"
    if why:
        raise DatasetError(f"{directory} may not be trained or evaluated on: {why}. {_run(directory, profile)}")
    return receipt


def _run(directory: Path, profile: str | None = None) -> str:
    model = f" --model {quote(profile)}" if profile else ""
    return f"Run: convkit validate {quote(str(directory))}{model}"


def _other_question(receipt: Receipt, profile: str | None) -> str | None:
    if receipt.rules != codes(with_model=receipt.profile is not None):
        return "its receipt is of other rules than those of this version"
    if profile is not None and receipt.profile != profile:
        other = f", but last for {receipt.profile}" if receipt.profile else ""
        return f"it was not validated for {profile}{other}"
    return None


def _other_rows(receipt: Receipt, dataset: Dataset) -> str | None:
    if dataset.manifest_sha256 != receipt.manifest:
        return f"{layout.MANIFEST} has changed since it was validated"
    for split in dataset.manifest.splits:
        path = dataset.path(split)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{path.name} cannot be read ({error.strerror})"
        if path.name not in receipt.rows or receipt.rows[path.name].sha256 != digest:
            return f"{path.name} has changed since it was validated"
    return None


_ROWS_AT_ONCE = 4096
_PATHS_AT_ONCE = 500


def _media(dataset: Dataset) -> MediaReceipt | None:
    """The sum of all media that the rows name, which are known to be sound; None where one is missing."""
    images = dataset.directory / layout.IMAGES
    root = images.resolve()
    total, paths = MediaDigest(), _paths(dataset)
    with closing(MediaCache(layout.media_cache(images))) as cache:
        while batch := list(islice(paths, _PATHS_AT_ONCE)):
            known = cache.get(batch)
            for path in batch:
                real = f"{root}/{path}"
                stamp, image = known.get(path, (None, None))
                if image and image.sha256 and stamp == file_stamp(real):
                    total.add(path, image.bytes, image.sha256)
                elif found := _hashed(images, path):
                    total.add(path, *found)
                else:
                    return None
    return total.receipt()


def _hashed(images: Path, path: str) -> tuple[int, str] | None:
    """Size and digest of an image; None where it is no file inside images/."""
    try:
        real = (images / path).resolve(strict=True)
        if not (real.is_relative_to(images.resolve()) and real.is_file()):
            return None
        with real.open("rb") as file:
            return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _paths(dataset: Dataset) -> Iterator[str]:
    """The images of all rows, in the order in which they are first named."""
    seen, key = DigestSet(), new_key()
    for file in dict.fromkeys(map(dataset.path, dataset.manifest.splits)):
        lines = read_lines(file)
        while raws := [line.raw for line in islice(lines, _ROWS_AT_ONCE)]:
            turns = (turn for raw in raws for turn in from_json(raw)["conversations"])
            paths = list(dict.fromkeys(path for turn in turns for path in turn["images"]))
            new = seen.add(from_bytes(packed_digests(paths, key))).tolist()
            yield from (path for path, is_new in zip(paths, new, strict=True) if is_new)

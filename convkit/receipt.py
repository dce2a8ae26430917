"""The validation receipt: a file that attests that a dataset directory passed validation, with digests of its content.

It has no time stamp: the same dataset gets the same receipt on every machine, and a change of a single byte makes it
stale. Training calls `require` to check it.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import from_json

from convkit import __version__, layout
from convkit.dataset import Dataset, read_lines
from convkit.errors import DatasetError
from convkit.media.cache import FileStamp, MediaCache, file_stamp
from convkit.media.images import ImageInfo
from convkit.rules.registry import codes, is_builtin
from convkit.schema import Count, Sha256
from convkit.utils.digests import DigestSet, from_bytes, new_key, packed_digests
from convkit.utils.json_file import read_model, write_model

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class RowsReceipt(BaseModel):
    """The receipt of one row file."""

    model_config = _STRICT

    rows: Count
    sha256: Sha256


class MediaReceipt(BaseModel):
    """The receipt of all media files that rows reference, each counted once."""

    model_config = _STRICT

    files: Count
    bytes: Count
    digest: Sha256 = Field(
        description="SHA-256 over one line for each file, path NUL sha256, in the order of their first reference."
    )


class Receipt(BaseModel):
    """The content of receipt.json: what was read, and the rules that it passed."""

    model_config = _STRICT

    receipt_version: Literal[1] = 1
    format_version: Literal[1] = 1
    convkit: str = Field(default=__version__, description="The convkit version that validated.")
    manifest: Sha256 = Field(description="Digest of dataset.json.")
    rows: dict[str, RowsReceipt] = Field(description="By file name.")
    media: MediaReceipt
    rules: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="Codes of all rules that ran.")
    profile: str | None = Field(default=None, description="The token profile that rows were checked against.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Options that influence the findings.")
    warnings: dict[str, Count] = Field(description="Number of findings of severity warning, by rule.")
    digest: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="SHA-256 over all the rest, as JSON.")

    def sealed(self) -> Self:
        """Return the receipt with its own digest, which detects edits."""
        return self.model_copy(update={"digest": self._own_digest()})

    @property
    def intact(self) -> bool:
        """Return whether the receipt was not edited since it was sealed."""
        return self.digest == self._own_digest()

    def _own_digest(self) -> str:
        return hashlib.sha256(self.model_dump_json(exclude={"digest"}).encode()).hexdigest()


class MediaDigest:
    """Computes the digest of media files in the order in which they are added."""

    def __init__(self) -> None:
        self._files = self._bytes = 0
        self._digest = hashlib.sha256()

    def add(self, path: str, size: int, sha256: str) -> None:
        """Add a file by its path in the rows."""
        self._files += 1
        self._bytes += size
        self._digest.update(f"{path}\0{sha256}\n".encode())

    def receipt(self) -> MediaReceipt:
        """Return the receipt of the files so far."""
        return MediaReceipt(files=self._files, bytes=self._bytes, digest=self._digest.hexdigest())


def write(directory: Path, receipt: Receipt) -> Path:
    """Write the receipt into a dataset directory, and return its path.

    Raises:
        OSError: the directory cannot be written.
    """
    path = directory / layout.RECEIPT
    write_model(path, receipt.sealed())
    return path


def read(directory: Path, profile: str | None = None) -> Receipt:
    """Read the receipt of a dataset directory without comparing it to the data.

    Args:
        profile: the token profile that the remedy of an error names.

    Raises:
        DatasetError: there is no receipt, it was edited, or it is of another version.
    """
    path, remedy = directory / layout.RECEIPT, _remedy(directory, profile)
    if not directory.is_dir():
        raise DatasetError(f"There is no directory {directory}. Pass a dataset directory that convkit convert wrote.")
    if not path.exists():
        raise DatasetError(f"{directory} has no {layout.RECEIPT}: it was not validated, or did not pass. {remedy}")
    receipt = read_model(path, Receipt, remedy, DatasetError)
    if not receipt.intact:
        raise DatasetError(f"{path} was edited: its digest does not match its content. {remedy}")
    return receipt


def has_other_media(directory: Path, new: Receipt) -> bool:
    """Return whether the existing receipt has the same manifest and rows as a new one, but different images.

    Valid images that were swapped remain valid, so no rule finds this.
    """
    try:
        old = read(directory)
    except DatasetError:
        return False
    return (old.manifest, old.rows) == (new.manifest, new.rows) and old.media != new.media


def require(directory: Path, profile: str | None = None) -> Receipt:
    """Return the receipt of a dataset directory, after checking that the data did not change since validation.

    Row files are read again; images only if the cache does not know them as unchanged.

    Args:
        profile: the token profile of the model to be trained; the dataset must have been validated for it.

    Raises:
        DatasetError: there is no receipt, or it does not match; the message says why, and the command that fixes it.
    """
    receipt, dataset = read(directory, profile), Dataset.open(directory)
    reason = _other_rules(receipt, profile) or _other_rows(receipt, dataset)
    if reason is None and _media_receipt(dataset) != receipt.media:
        reason = "images have changed since it was validated"
    if reason:
        raise DatasetError(
            f"{directory} cannot be used for training or evaluation: {reason}. {_remedy(directory, profile)}"
        )
    return receipt


def _remedy(directory: Path, profile: str | None = None) -> str:
    model = f" --model {quote(profile)}" if profile else ""
    return f"Run: convkit validate {quote(str(directory))}{model}"


def _other_rules(receipt: Receipt, profile: str | None) -> str | None:
    expected = codes(with_model=receipt.profile is not None)
    if list(filter(is_builtin, receipt.rules)) != list(filter(is_builtin, expected)):
        return "its receipt was written with other rules than those of this convkit version"
    if missing := [code for code in expected if code not in receipt.rules]:
        return f"it was not validated with {', '.join(missing)} of an installed package"
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


_ROW_BATCH = 4096
_PATH_BATCH = 500


def _media_receipt(dataset: Dataset) -> MediaReceipt | None:
    """Return the receipt of the current media files, or None if one is missing."""
    images = dataset.directory / layout.IMAGES
    root = images.resolve()
    total, paths = MediaDigest(), _image_paths(dataset)
    with closing(MediaCache(layout.media_cache(images))) as cache:
        while batch := list(islice(paths, _PATH_BATCH)):
            cached = cache.get(batch)
            for path in batch:
                found = _cached_digest(f"{root}/{path}", cached.get(path)) or _file_digest(images, path)
                if found is None:
                    return None
                total.add(path, *found)
    return total.receipt()


def _cached_digest(real: str, entry: tuple[FileStamp, ImageInfo] | None) -> tuple[int, str] | None:
    """Return size and digest of an image by its cache entry; None if the file changed."""
    if entry is None:
        return None
    stamp, image = entry
    return (image.bytes, image.sha256) if image.sha256 and stamp == file_stamp(real) else None


def _file_digest(images: Path, path: str) -> tuple[int, str] | None:
    """Return size and digest of an image; None if it is not a file inside images/."""
    try:
        real = (images / path).resolve(strict=True)
        if not (real.is_relative_to(images.resolve()) and real.is_file()):
            return None
        with real.open("rb") as file:
            return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _image_paths(dataset: Dataset) -> Iterator[str]:
    """Yield the image paths of all rows in the order of their first reference."""
    seen, key = DigestSet(), new_key()
    for file in dict.fromkeys(map(dataset.path, dataset.manifest.splits)):
        lines = read_lines(file)
        while raws := [line.raw for line in islice(lines, _ROW_BATCH)]:
            turns = (turn for raw in raws for turn in from_json(raw)["conversations"])
            paths = list(dict.fromkeys(path for turn in turns for path in turn["images"]))
            new = seen.add(from_bytes(packed_digests(paths, key))).tolist()
            yield from (path for path, is_new in zip(paths, new, strict=True) if is_new)

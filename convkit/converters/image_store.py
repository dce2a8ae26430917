"""Prepare source images for a dataset: convert, name, link and digest them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from xxhash import xxh3_64, xxh3_64_intdigest

from convkit.converters.base import Options
from convkit.errors import ItemError
from convkit.media.images import MAX_FILE_BYTES
from convkit.media.ingest import ingest

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
WORKER_IMPORTS = ("PIL.JpegImagePlugin", "PIL.PngImagePlugin")
"""Modules for `Converter.imports` of converters that store images."""
_DIGEST_BYTES = 8


class ImageOptions(Options):
    """Options shared by all converters that store images."""

    image_names: Literal["source", "content"] = Field(
        default="source",
        description="Name images as in the source, or by content hash, which stores equal images once (deduplication).",
    )
    link: bool = Field(
        default=False,
        exclude=True,
        description="Hard-link unchanged images instead of copying them, if the file system supports it.",
    )


@dataclass(frozen=True)
class StoredImage:
    """Hold one image of a `Record`: its path in rows, its content or the file to link, and notes on changes."""

    path: str
    content: bytes | Path
    notes: tuple[str, ...]


def store_bytes(data: bytes, stem: str, options: ImageOptions) -> StoredImage:
    """Convert an image for the dataset and name it.

    Args:
        data: the file's content in the source.
        stem: the path in rows without suffix, unless images are named by content. The suffix follows the content.

    Raises:
        ItemError: the image cannot be used.
    """
    stored = ingest(data)
    if options.image_names == "content":
        digest = hashlib.sha256(stored.data).hexdigest()
        stem = f"{digest[:2]}/{digest}"
    return StoredImage(stem + stored.suffix, stored.data, stored.notes)


def store_file(file: Path, stem: str, options: ImageOptions) -> StoredImage:
    """Convert an image file as `store_bytes` does; hard-link it if requested and its bytes are unchanged.

    Raises:
        ItemError: the image is missing, unreadable or cannot be used.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ItemError("undecodable-image", f"{file.name} has more than {MAX_FILE_BYTES:,} bytes")
        data = file.read_bytes()
    except FileNotFoundError:
        raise ItemError("missing-image", f"{file.name} is not in the source") from None
    except OSError as error:
        raise ItemError("unreadable-image", f"{file.name} cannot be read: {error.strerror}") from None
    picture = store_bytes(data, stem, options)
    if options.link and not picture.notes:
        return StoredImage(picture.path, file, ())
    return picture


def store_image(image: bytes | Path, stem: str, options: ImageOptions) -> StoredImage:
    """Convert an image that is given as bytes or as a file.

    Raises:
        ItemError: the image is missing, unreadable or cannot be used.
    """
    return store_bytes(image, stem, options) if isinstance(image, bytes) else store_file(image, stem, options)


def image_digest(image: bytes | Path) -> int:
    """Return the 64-bit XXH3 digest of an image file, used for exact deduplication.

    XXH3 is not cryptographic: files crafted to share a digest are treated as one image.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return xxh3_64_intdigest(image)
    with image.open("rb") as file:
        return int.from_bytes(hashlib.file_digest(file, xxh3_64).digest())


def image_group(digest: int) -> str:
    """Return the group name of rows that use an image with this digest."""
    return f"image-{digest:0{2 * _DIGEST_BYTES}x}"

"""Images of a source on their way into a data set: what converters of pictures share."""

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
IMPORTS = ("PIL.JpegImagePlugin", "PIL.PngImagePlugin")
"""`Converter.imports` of those converters."""
_DIGEST_BYTES = 8


class PictureOptions(Options):
    """Options of every converter that brings images along."""

    image_names: Literal["source", "content"] = Field(
        default="source",
        description="Name images as the source does, or by their content, so that equal ones are stored once.",
    )
    link: bool = Field(
        default=False,
        exclude=True,
        description="Hard-link images that are stored as they are, where the file system can.",
    )


@dataclass(frozen=True)
class Picture:
    """One image for a `Record`: its path in rows, its content (or the file to link), and what was done to it."""

    path: str
    content: bytes | Path
    notes: tuple[str, ...]


def from_bytes(data: bytes, stem: str, options: PictureOptions) -> Picture:
    """Make an image fit for the data set and name it.

    Args:
        data: the file as the source has it.
        stem: its path in rows without suffix, unless names go by content; the suffix follows the content.

    Raises:
        ItemError: it cannot be used.
    """
    stored = ingest(data)
    if options.image_names == "content":
        digest = hashlib.sha256(stored.data).hexdigest()
        stem = f"{digest[:2]}/{digest}"
    return Picture(stem + stored.suffix, stored.data, stored.notes)


def from_file(file: Path, stem: str, options: PictureOptions) -> Picture:
    """The same for an image file, which is linked if that is wanted and its bytes stay as they are.

    Raises:
        ItemError: it is missing, unreadable or cannot be used.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ItemError("undecodable-image", f"{file.name} has more than {MAX_FILE_BYTES:,} bytes")
        data = file.read_bytes()
    except FileNotFoundError:
        raise ItemError("missing-image", f"{file.name} is not in the source") from None
    except OSError as error:
        raise ItemError("unreadable-image", f"{file.name} cannot be read: {error.strerror}") from None
    picture = from_bytes(data, stem, options)
    if options.link and not picture.notes:
        return Picture(picture.path, file, ())
    return picture


def bring(image: bytes | Path, stem: str, options: PictureOptions) -> Picture:
    """The same for an image that is either.

    Raises:
        ItemError: it is missing, unreadable or cannot be used.
    """
    return from_bytes(image, stem, options) if isinstance(image, bytes) else from_file(image, stem, options)


def digest_of(image: bytes | Path) -> int:
    """64 bits of an image file, by XXH3: what tells that two are equal.

    Files can be made that share a digest. They are taken for one image.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(image, bytes):
        return xxh3_64_intdigest(image)
    with image.open("rb") as file:
        return int.from_bytes(hashlib.file_digest(file, xxh3_64).digest())


def group_of(digest: int) -> str:
    """The group of the rows that show an image of this digest."""
    return f"image-{digest:0{2 * _DIGEST_BYTES}x}"

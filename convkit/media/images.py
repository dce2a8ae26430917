"""Inspect image files that may be missing, broken or hostile. Runs in worker processes.

`open_image` is the only place where convkit opens an image: for the validator, here, and for `convkit.media.ingest`.
The validator's functions return a value for any file: a decoder error is a finding about the file, not an error of the
program. PIL is imported only when a file is opened.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from convkit.errors import ItemError
from convkit.media import image_properties as properties

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 178_956_970
"""Pillow's own limit for decompression bombs: half a gigabyte of RGB."""
MAX_FILE_BYTES = 512 * 2**20
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_MAX_REASON = 200
_TIFF_ROWS = 257


class ImageInfo(NamedTuple):
    """Hold the properties of a valid image."""

    sha256: str | None
    """The digest of the file, or None unless the image was decoded."""
    bytes: int
    width: int
    height: int
    format: str
    mode: str
    """Pillow's name for the pixel format, such as RGB."""
    orientation: int
    transparent: bool
    animated: bool
    blank: bool = False
    """True if all pixels are equal. This and the next fields are not set if `sha256` is None."""
    pixel_digest: int = 0
    """The result of `convkit.media.image_properties.pixel_digest`."""
    difference_hash: str = ""
    """The result of `convkit.media.image_properties.difference_hash`."""


class ImageJob(NamedTuple):
    """Hold an image for a worker to inspect."""

    relative: str
    """The path as in rows; it matches the pattern of the row schema."""
    real: str | None
    """The file itself, if it is known to lie inside the folder and is not a link."""


class ImageProblem(NamedTuple):
    """Describe why an image cannot be used: the slug of a CK2xx rule, and a message of one line."""

    rule: str
    message: str


@contextmanager
def open_image(file: BinaryIO) -> "Iterator[PIL.Image.Image]":
    """Open an image, read its header and check its size; the caller decodes the pixels.

    Raises:
        ItemError: the file is not an image, is too large, or fails while the caller decodes it. The rule is the slug
            of a CK2xx rule, and the reason continues a sentence that starts with the image's name.
    """
    import PIL.Image

    # Warnings concern metadata, or sizes below our limit; only the pixels matter.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ItemError("pixel-bomb", f"has {width:,} x {height:,} pixels; the limit is {MAX_PIXELS:,}")
                if image.format == "TIFF":
                    _check_tiff_rows(image)
                yield image
        except ItemError:
            raise
        except PIL.Image.DecompressionBombError:
            raise ItemError("pixel-bomb", f"has more than {MAX_PIXELS:,} pixels") from None
        except PIL.UnidentifiedImageError:
            raise ItemError("undecodable-image", _unidentified_reason(file)) from None
        except Exception as error:  # any error of a decoder on hostile bytes
            raise ItemError("undecodable-image", f"does not decode: {_error_text(error)}") from error


def _check_tiff_rows(image: Any) -> None:
    """Refuse a TIFF with strips for some of its rows only, since Pillow fills the rest with black."""
    rows = image.tag_v2[_TIFF_ROWS]  # the image's height is that of the upright one
    present = max((tile.extents[3] for tile in image.tile if tile.extents), default=0)
    if present < rows:
        raise ItemError("undecodable-image", f"has pixels for only {present:,} of its {rows:,} rows")


def check_file_size(size: int) -> None:
    """Refuse an empty or too large file.

    Raises:
        ItemError: as for `open_image`.
    """
    if size == 0:
        raise ItemError("empty-image", "has no bytes")
    if size > MAX_FILE_BYTES:
        raise ItemError("undecodable-image", f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")


def inspect_image(images: Path, decode: bool, job: ImageJob) -> ImageInfo | ImageProblem:
    """Inspect the image of a job. It is defined here so that a worker imports only Pillow for it."""
    if job.real is None:
        return inspect_dataset_image(images, decode, job.relative)
    return inspect_file(job.real, decode, job.relative)


def inspect_dataset_image(images: Path, decode: bool, relative: str) -> ImageInfo | ImageProblem:
    """Inspect one image of a dataset; never raises for the file's content.

    Args:
        images: the images/ folder.
        decode: decode all pixels and compute the digests; otherwise only the header is read.
        relative: the path as in rows; it matches the pattern of the row schema.
    """
    try:
        path = resolve_image_path(images, relative)
    except ItemError as refusal:
        return ImageProblem(refusal.rule, f"{relative!r} {refusal.reason}")
    return inspect_file(path, decode, relative)


def crash_problem(relative: str) -> ImageProblem:
    """Return the problem of an image that crashed the process that decoded it."""
    return ImageProblem("undecodable-image", f"{relative!r} crashed the decoder")


def inspect_file(path: str | Path, decode: bool = True, name: str | None = None) -> ImageInfo | ImageProblem:
    """Inspect one image file; never raises for the file's content.

    Only the first frame of an animation is decoded, as models use only that one.

    Args:
        name: the file's name in messages; by default the last part of its path.
    """
    name = name or os.path.basename(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ItemError("not-a-file", "is not a regular file")
        check_file_size(status.st_size)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest() if decode else None
            if decode:
                file.seek(0)
            with open_image(file) as image:
                return _image_info(image, sha256, status.st_size)
    except ItemError as refusal:
        return ImageProblem(refusal.rule, f"{name!r} {refusal.reason}")
    except OSError as error:
        return ImageProblem("undecodable-image", f"{name!r} cannot be read: {_error_text(error)}")


def _image_info(image: "PIL.Image.Image", sha256: str | None, size: int) -> ImageInfo:
    stored = (
        *image.size,
        image.format or "",
        image.mode,
        properties.orientation(image),
        image.has_transparency_data,
    )
    if sha256 is None:
        return ImageInfo(None, size, *stored, properties.has_more_frames(image))
    image.load()
    seen = (
        properties.is_blank(image),
        properties.pixel_digest(image),
        properties.difference_hash(image),
    )
    return ImageInfo(sha256, size, *stored, properties.has_more_frames(image), *seen)


def resolve_image_path(images: Path, relative: str) -> Path:
    """Resolve symbolic links, which must stay inside images/.

    Raises:
        ItemError: the file does not exist, or lies outside.
    """
    root = os.path.realpath(images)
    try:
        real = os.path.realpath(os.path.join(root, relative), strict=True)
    except (OSError, ValueError) as error:
        why = "" if isinstance(error, FileNotFoundError) else f": {_error_text(error)}"
        if relative.startswith(f"{images.name}/"):
            why += f", which paths do not name: leave out {images.name}/"
        raise ItemError("missing-image", f"is not in {images.name}/{why}") from None
    if os.path.commonpath([root, real]) != root:
        raise ItemError("outside-images", f"leads out of {images.name}/")
    return Path(real)


def _unidentified_reason(file: BinaryIO) -> str:
    """Return why no decoder accepts a file. Pillow reports "unidentified" even for a TIFF of an unsupported mode."""
    import PIL.Image

    file.seek(0)
    head = file.read(max(map(len, SIGNATURES)))
    file.seek(0)
    kind = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
    if kind:
        try:
            PIL.Image.OPEN[kind][0](file, "")
        except Exception as error:  # the error that Image.open swallowed
            return f"begins as {kind} but cannot be read as such: {_error_text(error)}"
    return f"is not one of {', '.join(FORMATS)}"


def _error_text(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:_MAX_REASON] or type(error).__name__

"""Looking at image files that may be missing, broken or hostile. Runs in worker processes.

`opened` is the only place where convkit opens an image: for the validator, here, and for `convkit.media.ingest`. Of the
validator's functions the answer is a value, whatever the file holds: a decoder that raises is a finding about the
file, not an error of the program. PIL is imported only where a file is opened.
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
"""Where Pillow itself refuses an image as a decompression bomb: half a gigabyte of RGB."""
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
    """A sound image."""

    sha256: str | None
    """None unless it was decoded."""
    bytes: int
    width: int
    height: int
    format: str
    mode: str
    """Pillow's name for the kind of pixels, such as RGB."""
    orientation: int
    transparent: bool
    animated: bool
    blank: bool = False
    """This and what follows says nothing where `sha256` is None."""
    pixel_digest: int = 0
    """As `convkit.media.image_properties.pixel_digest` has it."""
    difference_hash: str = ""
    """As `convkit.media.image_properties.difference_hash` has it."""


class ImageJob(NamedTuple):
    """An image for a worker to look at."""

    relative: str
    """The path as rows spell it; it follows the pattern of the row schema."""
    real: str | None
    """The file itself, where it is known to lie inside the folder and to be no link."""


class ImageProblem(NamedTuple):
    """Why an image cannot be used: the slug of a CK2xx rule, and what is wrong in one line."""

    rule: str
    message: str


@contextmanager
def open_image(file: BinaryIO) -> "Iterator[PIL.Image.Image]":
    """An image whose header has been read and whose size is within bounds; its pixels are for the caller to decode.

    Raises:
        ItemError: it is none, or too large, or the caller's decoding of it fails; the rule is the slug of a CK2xx rule
            and the reason goes on from the image's name.
    """
    import PIL.Image

    # Warnings are about metadata, or about a size below our cap: the pixels are what counts.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ItemError("pixel-bomb", f"has {width:,} x {height:,} pixels; the limit is {MAX_PIXELS:,}")
                if image.format == "TIFF":
                    _refuse_missing_rows(image)
                yield image
        except ItemError:
            raise
        except PIL.Image.DecompressionBombError:
            raise ItemError("pixel-bomb", f"has more than {MAX_PIXELS:,} pixels") from None
        except PIL.UnidentifiedImageError:
            raise ItemError("undecodable-image", _unidentified(file)) from None
        except Exception as error:  # whatever a decoder makes of hostile bytes
            raise ItemError("undecodable-image", f"does not decode: {_reason(error)}") from error


def _refuse_missing_rows(image: Any) -> None:
    """Refuse a TIFF with strips for a part of it only: Pillow makes the rest black, be it millions of rows."""
    rows = image.tag_v2[_TIFF_ROWS]  # the image's height is that of the upright one
    present = max((tile.extents[3] for tile in image.tile if tile.extents), default=0)
    if present < rows:
        raise ItemError("undecodable-image", f"has pixels for only {present:,} of its {rows:,} rows")


def check_file_size(size: int) -> None:
    """Refuse a file by its number of bytes.

    Raises:
        ItemError: as `opened` does.
    """
    if size == 0:
        raise ItemError("empty-image", "has no bytes")
    if size > MAX_FILE_BYTES:
        raise ItemError("undecodable-image", f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")


def inspect_image(images: Path, decode: bool, job: ImageJob) -> ImageInfo | ImageProblem:
    """`check`, or `probe` where the file is known; here, so that a worker loads nothing but Pillow to do it."""
    if job.real is None:
        return inspect_dataset_image(images, decode, job.relative)
    return inspect_file(job.real, decode, job.relative)


def inspect_dataset_image(images: Path, decode: bool, relative: str) -> ImageInfo | ImageProblem:
    """Look at one image of a data set; never raises for what the file is or holds.

    Args:
        images: the images/ folder.
        decode: decode all pixels and take the digest; else the header alone is read.
        relative: the path as rows spell it; it follows the pattern of the row schema.
    """
    try:
        path = resolve_image_path(images, relative)
    except ItemError as refusal:
        return ImageProblem(refusal.rule, f"{relative!r} {refusal.reason}")
    return inspect_file(path, decode, relative)


def crash_problem(relative: str) -> ImageProblem:
    """The answer for an image that killed the process that decoded it."""
    return ImageProblem("undecodable-image", f"{relative!r} crashed the decoder")


def inspect_file(path: str | Path, decode: bool = True, name: str | None = None) -> ImageInfo | ImageProblem:
    """Look at one image file; never raises for what the file is or holds.

    Of an animation only the first frame is decoded, which is the one that models are shown.

    Args:
        name: what messages call the file; its last part if not given.
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
                return _facts(image, sha256, status.st_size)
    except ItemError as refusal:
        return ImageProblem(refusal.rule, f"{name!r} {refusal.reason}")
    except OSError as error:
        return ImageProblem("undecodable-image", f"{name!r} cannot be read: {_reason(error)}")


def _facts(image: "PIL.Image.Image", sha256: str | None, size: int) -> ImageInfo:
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
    """Follow symbolic links, which must stay inside images/.

    Raises:
        ItemError: there is no such file, or it lies outside.
    """
    root = os.path.realpath(images)
    try:
        real = os.path.realpath(os.path.join(root, relative), strict=True)
    except (OSError, ValueError) as error:
        why = "" if isinstance(error, FileNotFoundError) else f": {_reason(error)}"
        if relative.startswith(f"{images.name}/"):
            why += f", which paths do not name: leave out {images.name}/"
        raise ItemError("missing-image", f"is not in {images.name}/{why}") from None
    if os.path.commonpath([root, real]) != root:
        raise ItemError("outside-images", f"leads out of {images.name}/")
    return Path(real)


def _unidentified(file: BinaryIO) -> str:
    """Why no decoder takes a file: Pillow says "unidentified" even of a TIFF in a kind of pixels it has no mode for."""
    import PIL.Image

    file.seek(0)
    head = file.read(max(map(len, SIGNATURES)))
    file.seek(0)
    kind = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
    if kind:
        try:
            PIL.Image.OPEN[kind][0](file, "")
        except Exception as error:  # the one that Image.open swallowed
            return f"begins as {kind} but cannot be read as such: {_reason(error)}"
    return f"is not one of {', '.join(FORMATS)}"


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:_MAX_REASON] or type(error).__name__

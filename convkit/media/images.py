"""Looking at image files that may be missing, broken or hostile. Runs in worker processes.

Whatever the file holds, the answer is a value: a decoder that raises is a finding about the file, not an error of
the program. PIL is imported only where a file is opened.
"""

import hashlib
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 178_956_970
"""Where Pillow itself refuses an image as a decompression bomb: half a gigabyte of RGB."""
MAX_FILE_BYTES = 512 * 2**20
_MAX_REASON = 200


class Image(NamedTuple):
    """A sound image."""

    sha256: str | None
    """None unless it was decoded."""
    bytes: int
    width: int
    height: int
    format: str


class ImageProblem(NamedTuple):
    """Why an image cannot be used: the slug of a CK2xx rule, and what is wrong in one line."""

    rule: str
    message: str


class _RefusedError(Exception):
    """Carries an ImageProblem out of the middle of a check."""


def check(images: Path, decode: bool, relative: str) -> Image | ImageProblem:
    """Look at one image of a data set; never raises for what the file is or holds.

    Args:
        images: the images/ folder.
        decode: decode all pixels and take the digest; else the header alone is read.
        relative: the path as rows spell it; it follows the pattern of the row schema.
    """
    try:
        path = _real_file(images, relative)
    except _RefusedError as refusal:
        return ImageProblem(*refusal.args)
    return probe(path, decode, relative)


def crashed(relative: str) -> ImageProblem:
    """The answer for an image that killed the process that decoded it."""
    return ImageProblem("undecodable-image", f"{relative!r} crashed the decoder")


def probe(path: Path, decode: bool = True, name: str | None = None) -> Image | ImageProblem:
    """Look at one image file; never raises for what the file is or holds.

    Of an animation only the first frame is decoded, which is the one that models are shown.

    Args:
        name: what messages call the file; its last part if not given.
    """
    name = name or path.name
    try:
        size = _regular_size(path, name)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest() if decode else None
            file.seek(0)
            width, height, kind = _open(file, name, decode)
    except _RefusedError as refusal:
        return ImageProblem(*refusal.args)
    except Exception as error:  # whatever a decoder makes of hostile bytes
        return ImageProblem("undecodable-image", f"{name!r} cannot be decoded: {_reason(error)}")
    return Image(sha256, size, width, height, kind)


def _real_file(images: Path, relative: str) -> Path:
    """Follow symbolic links, which must stay inside images/."""
    root = os.path.realpath(images)
    try:
        real = os.path.realpath(os.path.join(root, relative), strict=True)
    except (OSError, ValueError) as error:
        why = "" if isinstance(error, FileNotFoundError) else f": {_reason(error)}"
        raise _RefusedError("missing-image", f"there is no {relative!r} in {images.name}/{why}") from None
    if os.path.commonpath([root, real]) != root:
        raise _RefusedError("outside-images", f"{relative!r} leads out of {images.name}/")
    return Path(real)


def _regular_size(path: Path, name: str) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError("not-a-file", f"{name!r} is not a regular file")
    if status.st_size == 0:
        raise _RefusedError("empty-image", f"{name!r} has no bytes")
    if status.st_size > MAX_FILE_BYTES:
        raise _RefusedError("undecodable-image", f"{name!r} has {status.st_size:,} bytes, over {MAX_FILE_BYTES:,}")
    return status.st_size


def _open(file: BinaryIO, name: str, decode: bool) -> tuple[int, int, str]:
    import PIL.Image

    # Warnings are about metadata, or about a size below our cap: the pixels are what counts.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with PIL.Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _RefusedError("pixel-bomb", f"{name!r} has {width:,} x {height:,} pixels")
                if decode:
                    image.load()
                return width, height, image.format or ""
        except PIL.Image.DecompressionBombError:
            raise _RefusedError("pixel-bomb", f"{name!r} has more than {MAX_PIXELS:,} pixels") from None
        except PIL.UnidentifiedImageError:
            raise _RefusedError("undecodable-image", f"{name!r} is not one of {', '.join(FORMATS)}") from None


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:_MAX_REASON] or type(error).__name__

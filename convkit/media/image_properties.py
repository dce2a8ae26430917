"""Compute properties of an open image for the rules: orientation, frames, and digests for duplicate detection.

No function raises for a valid image. Pixel digests have a fixed size, independent of the image's size.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from xxhash import xxh3_64

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION_TAG = 0x0112
HASH_SIDE = 16
HASH_BITS = HASH_SIDE * HASH_SIDE
_LEAST_STEP = 3
"""Minimum brightness step between neighbouring cells; recompressing an image changes a cell's mean by less."""
_LEAST_STEPS = 40
_STRIP_PIXELS = 2**22


def orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 to 8; 1 is upright."""
    import PIL.Image

    try:
        # Not the subclass's method, which for a PNG without EXIF decodes the pixels to search behind them.
        found = PIL.Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:  # broken metadata does not affect the pixels
        return 1
    return found if found in range(2, 9) else 1


def has_more_frames(image: "Image") -> bool:
    """Return True if a frame or page follows the first; a camera's MPO is a JPEG with previews behind it.

    Call it last: data after the first frame may be broken, and the pixels may be lost afterwards.
    """
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # more data follows, although it does not parse
        return True


def is_blank(image: "Image") -> bool:
    """Return True if all pixels of a loaded image are equal."""
    first, right, bottom = image.getpixel((0, 0)), image.width - 1, image.height - 1
    # Usually three more pixels are enough to find a difference.
    if any(image.getpixel(place) != first for place in ((right, bottom), (right // 2, bottom // 2), (0, bottom))):
        return False
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def pixel_digest(image: "Image") -> int:
    """Return a 64-bit digest of a loaded image in RGB; equal images in two file formats have one digest.

    It is not cryptographic: images crafted to share a digest cause a false finding.
    """
    digest = xxh3_64(repr(image.size).encode())
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        digest.update(_as(strip, "RGB").tobytes())
    return digest.intdigest()


def difference_hash(image: "Image") -> str:
    """Return the difference hash (dHash) of an image for near-duplicate detection, as 64 hexadecimal digits.

    Each of the 256 bits compares two neighbours in 16 rows of 17 cells. Other sizes or compressions of an image differ
    in a few bits, different photographs in about 80. The result is empty if there are too few brightness steps to tell
    images apart, as for a single shape on a plain background.
    """
    import PIL.Image

    small = _as(image, "L").resize((HASH_SIDE + 1, HASH_SIDE), PIL.Image.Resampling.BILINEAR)
    cells = small.tobytes()
    lines = [cells[start : start + HASH_SIDE + 1] for start in range(0, len(cells), HASH_SIDE + 1)]
    steps = "".join(["1" if b - a >= _LEAST_STEP else "0" for line in lines for a, b in pairwise(line)])
    return f"{int(steps, 2):0{HASH_BITS // 4}x}" if steps.count("1") >= _LEAST_STEPS else ""


def _as(image: "Image", mode: str) -> "Image":
    """Convert an image to a mode, or return its first band if Pillow cannot convert it, as from LAB."""
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError:
        return image.getchannel(0)

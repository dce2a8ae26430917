"""What the rules ask of an open image beyond its size: how it is stored, and what its pixels can be compared by.

None of these raises for a sound image. Of pixels, an answer is some bytes, whatever the size of the image.
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
"""Grey levels between two cells that count as a step; compressing an image again moves the mean of a cell by less."""
_LEAST_STEPS = 40
_STRIP_PIXELS = 2**22


def orientation(image: "Image") -> int:
    """1 to 8, as EXIF counts them; 1 is upright."""
    import PIL.Image

    try:
        # Not that of the subclass, which for a PNG without EXIF decodes the pixels to look behind them.
        found = PIL.Image.Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:  # broken metadata says nothing about the pixels
        return 1
    return found if found in range(2, 9) else 1


def has_more_frames(image: "Image") -> bool:
    """Whether a frame or page follows the first; a camera's MPO is a JPEG with previews behind it.

    To be asked last: what comes after the first frame's pixels may be broken, and the pixels may be gone afterwards.
    """
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there is something behind it, though it does not parse
        return True


def is_blank(image: "Image") -> bool:
    """Whether all pixels of a loaded image are equal."""
    first, right, bottom = image.getpixel((0, 0)), image.width - 1, image.height - 1
    # Mostly three more pixels say that it is not.
    if any(image.getpixel(place) != first for place in ((right, bottom), (right // 2, bottom // 2), (0, bottom))):
        return False
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


def pixel_digest(image: "Image") -> int:
    """64 bits of what a loaded image shows in RGB, so that the same picture in two formats has one digest.

    It is no secret and proves nothing: who prepares two pictures with one digest gets a false finding.
    """
    digest = xxh3_64(repr(image.size).encode())
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        digest.update(_as(strip, "RGB").tobytes())
    return digest.intdigest()


def difference_hash(image: "Image") -> str:
    """The steps from dark to bright between neighbours in 16 rows of 17 cells, as 64 hexadecimal digits.

    Two sizes or compressions of one picture differ in a few of the 256 bits, different photographs in some 80. Empty
    where there are too few steps to tell pictures apart, as in a shape before a plain ground.
    """
    import PIL.Image

    small = _as(image, "L").resize((HASH_SIDE + 1, HASH_SIDE), PIL.Image.Resampling.BILINEAR)
    cells = small.tobytes()
    lines = [cells[start : start + HASH_SIDE + 1] for start in range(0, len(cells), HASH_SIDE + 1)]
    steps = "".join(["1" if b - a >= _LEAST_STEP else "0" for line in lines for a, b in pairwise(line)])
    return f"{int(steps, 2):0{HASH_BITS // 4}x}" if steps.count("1") >= _LEAST_STEPS else ""


def _as(image: "Image", mode: str) -> "Image":
    """Converted; or its first band where there is no way, as from LAB."""
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError:
        return image.getchannel(0)

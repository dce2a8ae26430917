"""Bringing an image into a data set: as it is where it already is what models read, else as RGB.

An 8-bit RGB JPEG or PNG that stands upright is stored byte for byte. Anything else is decoded and stored again: lossy
originals as JPEG of quality 95 without chroma subsampling, all others as PNG. What was done is noted. Metadata that
does not parse never costs good pixels: what Pillow gives up over is left out (`convkit.media.metadata`). PIL is
imported only where an image is opened.

What is certain of an image that is stored: its header can be read, its size is within bounds, and it is whole. Those
that are stored again were decoded, and so were those whose bytes leave a doubt. The others were not, because decoding
takes several times as long as everything else: a PNG among them has the right checksum in every chunk up to its end, a
JPEG has its end marker as its last bytes. Whether the pixels between can be decoded is for `convkit validate` to say,
which decodes everything.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.errors import ItemError
from convkit.media import jpeg, metadata
from convkit.media.image_properties import has_more_frames, orientation
from convkit.media.images import check_file_size, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSY = {"JPEG": ".jpg", "MPO": ".jpg"}
WHITE = (255, 255, 255)
WIDE_NOTE = "16-bit scaled to 8-bit"
METADATA_NOTE = "metadata left out that cannot be parsed"
FRAMES_NOTE = "first frame of an animation or of several pages"
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_SIXTEEN_BIT_MAX = 65535
_GREY_STEPS = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Stored:
    """An image as the data set keeps it."""

    data: bytes
    suffix: str
    """`.jpg` or `.png`, by content."""
    notes: tuple[str, ...]
    """What was done to it; nothing where the bytes are the original's."""


def ingest(data: bytes) -> Stored:
    """Make an image fit for a data set.

    Args:
        data: the whole file, in one of `convkit.media.images.FORMATS`, whatever its name says.

    Raises:
        ItemError: it is no image, is too large, or is not whole.
    """
    try:
        check_file_size(len(data))
        return _ingest(data)
    except ItemError as error:
        if stored := _without_metadata(data):
            return stored
        raise ItemError(error.rule, f"the image {error.reason}") from error


def _ingest(data: bytes) -> Stored:
    if jpeg.is_plain(data):
        return Stored(data, ".jpg", ())
    with open_image(io.BytesIO(data)) as image:
        return _store(image, data)


def _without_metadata(data: bytes) -> Stored | None:
    """An image that cannot be used, without its metadata; None where these are not to blame."""
    rest = metadata.without(data)
    if rest is None:
        return None
    try:
        with open_image(io.BytesIO(rest)) as image:
            image.load()  # what failed may have been the pixels
        stored = _ingest(rest)
    except ItemError:
        return None
    return Stored(stored.data, stored.suffix, (METADATA_NOTE, *stored.notes))


def _store(image: "Image", data: bytes) -> Stored:
    kind, raw = image.format or "", _raw_mode(image)
    wide = ";16" in raw
    suffix = LOSSY.get(kind, ".png")
    if _is_whole(kind, data) and _is_plain(image, raw):
        return Stored(data, suffix, ())
    image.load()
    _mend_transparency(image, raw)
    upright, notes = _upright(image)
    rgb, converted = _to_rgb(upright, _negative(image), _full_scale(image))
    notes += converted
    if wide and WIDE_NOTE not in notes:
        notes.append(WIDE_NOTE)
    if has_more_frames(image):
        notes.append(FRAMES_NOTE)
    if kind not in (*LOSSY, "PNG"):
        notes.append(f"{kind} stored as PNG")
    if not notes:
        return Stored(data, suffix, ())
    return Stored(_encode(rgb, suffix), suffix, tuple(notes))


def _is_whole(kind: str, data: bytes) -> bool:
    """Whether a file is certain to be a whole JPEG or PNG; what is not certain is for the decoder to say."""
    return data.endswith(jpeg.END) if kind in LOSSY else kind == "PNG" and _png_is_whole(data)


def _png_is_whole(data: bytes) -> bool:
    """Whether all chunks have the checksums they were written with, and nothing but the end follows the pixels."""
    view = memoryview(data)
    position, before = len(metadata.PNG_SIGNATURE), b""
    while position + 12 <= len(view):
        length, name = struct.unpack_from(">I4s", view, position)
        end = position + 8 + length
        if end + 4 > len(view) or struct.unpack_from(">I", view, end) != (zlib.crc32(view[position + 4 : end]),):
            return False
        if name != b"IDAT" and before == b"IDAT":
            return bool(name == b"IEND")
        position, before = end + 4, name
    return False


def _is_plain(image: "Image", raw: str) -> bool:
    """Whether a JPEG or PNG that is not loaded is what models read: one picture in 8-bit RGB that stands upright.

    Not to be asked of a PNG with metadata behind its pixels: Pillow would go on believing that there are none.
    """
    if image.mode != "RGB" or ";16" in raw or image.has_transparency_data or orientation(image) != 1:
        return False
    return image.format in LOSSY or not has_more_frames(image)


def _raw_mode(image: "Image") -> str:
    """The kind of pixels in a file that was opened, but not loaded; the mode tells of 16 bits for one channel only."""
    tiles = getattr(image, "tile", ())
    return str(tiles[0].args) if tiles else ""


def _mend_transparency(image: "Image", raw: str) -> None:
    """Give the transparent colour of a PNG in the values of the pixels: Pillow scales these to 8 bits, but not it."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and raw in _GREY_STEPS:
        image.info["transparency"] = key * _GREY_STEPS[raw] & 255


def _negative(image: "Image") -> bool:
    """Whether a TIFF calls zero white, which Pillow heeds for 8 bits only."""
    return bool(_tiff_tag(image, _TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _full_scale(image: "Image") -> int:
    """What stands for white among wide integers: less than 16 bits in the 12-bit TIFF of a scanner."""
    bits = _tiff_tag(image, _TIFF_BITS)
    return 2 ** bits[0] - 1 if isinstance(bits, tuple) and bits and bits[0] < 16 else _SIXTEEN_BIT_MAX


def _tiff_tag(image: "Image", tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)


def _upright(image: "Image") -> "tuple[Image, list[str]]":
    """The image as its EXIF orientation wants it shown."""
    import PIL.Image

    turn = orientation(image)
    if turn == 1:
        return image, []
    turns = PIL.Image.Transpose
    methods = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    return image.transpose(methods[turn]), ["EXIF orientation applied"]


def _to_rgb(image: "Image", negative: bool, full_scale: int) -> "tuple[Image, list[str]]":
    """The image in RGB, 8 bits a channel, nothing transparent."""
    import PIL.Image

    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(image, negative, full_scale)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = PIL.Image.new("RGB", image.size, WHITE)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat, ["alpha flattened on white"]
    if mode == "RGB":
        return image, []
    rgb = image.convert("RGB")
    rgb.info.pop("icc_profile", None)  # it is of the other mode
    return rgb, [f"{mode} converted to RGB"]


def _scaled(image: "Image", negative: bool, full_scale: int) -> "tuple[Image, list[str]]":
    """Wide integers and floats brought to 0..255 without clipping: by the full scale where they fit, else by range."""
    import numpy as np
    import PIL.Image

    # 32-bit floats hold 16-bit integers exactly, in half the memory.
    kind = np.float32 if image.mode.startswith("I;16") else np.float64
    values: np.ndarray[Any, Any] = np.asarray(image).astype(kind)
    if not np.isfinite(values).all():
        raise ItemError("undecodable-image", "holds values that are not finite")
    low, high, note = 0.0, float(full_scale), WIDE_NOTE
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
        note = f"{'floats' if image.mode == 'F' else 'integers'} scaled from their range to 8-bit"
    key = image.info.get("transparency")
    see_through = values == key if isinstance(key, int) else None
    values -= low  # in place: a large image is one of gigabytes
    values *= 255
    values /= (high - low) or 1
    if negative:
        np.subtract(255, values, out=values)
    pixels = np.rint(values, out=values).astype(np.uint8)
    if see_through is None:
        return PIL.Image.fromarray(pixels).convert("RGB"), [note]
    pixels[see_through] = 255
    return PIL.Image.fromarray(pixels).convert("RGB"), [note, "alpha flattened on white"]


def _encode(image: "Image", suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=image.info.get("icc_profile"))
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

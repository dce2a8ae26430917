"""Convert images for a dataset: files that models read directly are kept unchanged, all others become RGB.

An upright 8-bit RGB JPEG or PNG is stored byte for byte. Anything else is decoded and encoded again: lossy originals as
JPEG of quality 95 without chroma subsampling, all others as PNG. Changes are recorded as notes. If Pillow cannot parse
an image's metadata, the metadata is removed and the pixels are kept (`convkit.media.metadata`). PIL is imported only
when an image is opened.

Every stored image has a readable header, a size within the limits, and a complete file. Images that are encoded again,
or that look suspicious, were decoded. The others were not, since decoding takes several times as long as all other
work: a PNG has valid checksums in every chunk up to its end, and a JPEG ends with its end marker. `convkit validate`
decodes all pixels.
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

LOSSY_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg"}
WHITE = (255, 255, 255)
WIDE_NOTE = "16-bit scaled to 8-bit"
METADATA_NOTE = "metadata left out that cannot be parsed"
FRAMES_NOTE = "first frame of an animation or of several pages"
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_SIXTEEN_BIT_MAX = 65535
_GREY_STEPS = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class IngestedImage:
    """Hold an image as it is stored in the dataset."""

    data: bytes
    suffix: str
    """The suffix `.jpg` or `.png`, by content."""
    notes: tuple[str, ...]
    """The changes made to the image; empty if the original bytes are kept."""


def ingest(data: bytes) -> IngestedImage:
    """Convert an image for a dataset.

    Args:
        data: the whole file, in one of `convkit.media.images.FORMATS`, independent of its name.

    Raises:
        ItemError: the file is not an image, is too large, or is incomplete.
    """
    try:
        check_file_size(len(data))
        return _ingest(data)
    except ItemError as error:
        if stored := _ingest_without_metadata(data):
            return stored
        raise ItemError(error.rule, f"the image {error.reason}") from error


def _ingest(data: bytes) -> IngestedImage:
    if jpeg.is_plain(data):
        return IngestedImage(data, ".jpg", ())
    with open_image(io.BytesIO(data)) as image:
        return _store(image, data)


def _ingest_without_metadata(data: bytes) -> IngestedImage | None:
    """Convert an unusable image without its metadata; None if the metadata is not the cause."""
    rest = metadata.strip_metadata(data)
    if rest is None:
        return None
    try:
        with open_image(io.BytesIO(rest)) as image:
            image.load()  # the pixels themselves may be damaged
        stored = _ingest(rest)
    except ItemError:
        return None
    return IngestedImage(stored.data, stored.suffix, (METADATA_NOTE, *stored.notes))


def _store(image: "Image", data: bytes) -> IngestedImage:
    kind, raw = image.format or "", _raw_mode(image)
    wide = ";16" in raw
    suffix = LOSSY_SUFFIXES.get(kind, ".png")
    if _is_whole(kind, data) and _is_upright_rgb(image, raw):
        return IngestedImage(data, suffix, ())
    image.load()
    _scale_transparent_color(image, raw)
    upright, notes = _apply_orientation(image)
    rgb, converted = _to_rgb(upright, _zero_is_white(image), _white_level(image))
    notes += converted
    if wide and WIDE_NOTE not in notes:
        notes.append(WIDE_NOTE)
    if has_more_frames(image):
        notes.append(FRAMES_NOTE)
    if kind not in (*LOSSY_SUFFIXES, "PNG"):
        notes.append(f"{kind} stored as PNG")
    if not notes:
        return IngestedImage(data, suffix, ())
    return IngestedImage(_encode(rgb, suffix), suffix, tuple(notes))


def _is_whole(kind: str, data: bytes) -> bool:
    """Return True if a file is certainly a complete JPEG or PNG; otherwise the decoder decides."""
    return data.endswith(jpeg.END) if kind in LOSSY_SUFFIXES else kind == "PNG" and _png_is_whole(data)


def _png_is_whole(data: bytes) -> bool:
    """Return True if all chunks have valid checksums, and only the end chunk follows the pixels."""
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


def _is_upright_rgb(image: "Image", raw: str) -> bool:
    """Return True for an unloaded JPEG or PNG that models read directly: one upright image in 8-bit RGB.

    Do not call it for a PNG with metadata behind its pixels: Pillow would not find that metadata afterwards.
    """
    if image.mode != "RGB" or ";16" in raw or image.has_transparency_data or orientation(image) != 1:
        return False
    return image.format in LOSSY_SUFFIXES or not has_more_frames(image)


def _raw_mode(image: "Image") -> str:
    """Return the pixel format of an opened, unloaded file; the mode shows 16 bits for single channels only."""
    tiles = getattr(image, "tile", ())
    return str(tiles[0].args) if tiles else ""


def _scale_transparent_color(image: "Image", raw: str) -> None:
    """Scale a PNG's transparent colour to 8 bits, as Pillow scales the pixels but not this colour."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and raw in _GREY_STEPS:
        image.info["transparency"] = key * _GREY_STEPS[raw] & 255


def _zero_is_white(image: "Image") -> bool:
    """Return True if zero means white in a TIFF, which Pillow handles for 8 bits only."""
    return bool(_tiff_tag(image, _TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _white_level(image: "Image") -> int:
    """Return the value of white in a wide-integer image; a scanner's 12-bit TIFF uses less than 16 bits."""
    bits = _tiff_tag(image, _TIFF_BITS)
    return 2 ** bits[0] - 1 if isinstance(bits, tuple) and bits and bits[0] < 16 else _SIXTEEN_BIT_MAX


def _tiff_tag(image: "Image", tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)


def _apply_orientation(image: "Image") -> "tuple[Image, list[str]]":
    """Rotate the image as its EXIF orientation requires."""
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


def _to_rgb(image: "Image", zero_is_white: bool, white_level: int) -> "tuple[Image, list[str]]":
    """Convert the image to opaque RGB with 8 bits per channel."""
    import PIL.Image

    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(image, zero_is_white, white_level)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = PIL.Image.new("RGB", image.size, WHITE)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat, ["alpha flattened on white"]
    if mode == "RGB":
        return image, []
    rgb = image.convert("RGB")
    rgb.info.pop("icc_profile", None)  # the profile is for the other mode
    return rgb, [f"{mode} converted to RGB"]


def _scaled(image: "Image", zero_is_white: bool, white_level: int) -> "tuple[Image, list[str]]":
    """Scale wide integers and floats to 0..255 without clipping: by the full scale if they fit, else by their range."""
    import numpy as np
    import PIL.Image

    # 32-bit floats represent 16-bit integers exactly, in half the memory.
    kind = np.float32 if image.mode.startswith("I;16") else np.float64
    values: np.ndarray[Any, Any] = np.asarray(image).astype(kind)
    if not np.isfinite(values).all():
        raise ItemError("undecodable-image", "holds values that are not finite")
    low, high, note = 0.0, float(white_level), WIDE_NOTE
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
        note = f"{'floats' if image.mode == 'F' else 'integers'} scaled from their range to 8-bit"
    key = image.info.get("transparency")
    transparent = values == key if isinstance(key, int) else None
    values -= low  # in place, since a large image takes gigabytes
    values *= 255
    values /= (high - low) or 1
    if zero_is_white:
        np.subtract(255, values, out=values)
    pixels = np.rint(values, out=values).astype(np.uint8)
    if transparent is None:
        return PIL.Image.fromarray(pixels).convert("RGB"), [note]
    pixels[transparent] = 255
    return PIL.Image.fromarray(pixels).convert("RGB"), [note, "alpha flattened on white"]


def _encode(image: "Image", suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=image.info.get("icc_profile"))
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

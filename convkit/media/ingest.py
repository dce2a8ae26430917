"""Bringing an image into a data set: as it is where it already is what models read, else as RGB.

An 8-bit RGB JPEG or PNG that stands upright is stored byte for byte. Anything else is decoded and stored again: lossy
originals as JPEG of quality 95 without chroma subsampling, all others as PNG. What was done is noted. Metadata that
does not parse never costs good pixels. PIL is imported only where an image is opened.
"""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.errors import ItemError
from convkit.media.images import FORMATS, MAX_FILE_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSY = {"JPEG": ".jpg", "MPO": ".jpg"}
ORIENTATION_TAG = 0x0112
WHITE = (255, 255, 255)
WIDE_NOTE = "16-bit scaled to 8-bit"
FRAMES_NOTE = "first frame of an animation or of several pages"
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
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
        ItemError: it does not decode to its last pixel, or is too large.
    """
    if not data:
        raise ItemError("empty-image", "the image has no bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ItemError("huge-image", f"the image has {len(data):,} bytes; the limit is {MAX_FILE_BYTES:,}")
    import PIL.Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, or sizes below our limit
        try:
            with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _refuse_bomb(image.width, image.height)
                return _store(image, data)
        except ItemError:
            raise
        except PIL.Image.DecompressionBombError:
            raise ItemError("pixel-bomb", f"the image has more than {MAX_PIXELS:,} pixels") from None
        except PIL.UnidentifiedImageError:
            raise ItemError("undecodable-image", _unidentified(data)) from None
        except Exception as error:  # whatever a decoder makes of hostile bytes
            raise ItemError("undecodable-image", f"the image does not decode: {_reason(error)}") from error


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ItemError("pixel-bomb", f"the image has {width:,} x {height:,} pixels; the limit is {MAX_PIXELS:,}")


def _unidentified(data: bytes) -> str:
    """Why no decoder takes a file: Pillow says "unidentified" even of a TIFF in a kind of pixels it has no mode for."""
    import PIL.Image

    kind = next((kind for signature, kind in SIGNATURES.items() if data.startswith(signature)), None)
    if kind:
        try:
            PIL.Image.OPEN[kind][0](io.BytesIO(data), "")
        except Exception as error:  # the one that Image.open swallowed
            return f"the image begins as {kind} but cannot be read as such: {_reason(error)}"
    return f"the image is not one of {', '.join(FORMATS)}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _store(image: "Image", data: bytes) -> Stored:
    kind, raw = image.format or "", _raw_mode(image)
    wide = ";16" in raw
    suffix = LOSSY.get(kind, ".png")
    image.load()
    _mend_transparency(image, raw)
    upright, notes = _upright(image)
    rgb, converted = _to_rgb(upright, _negative(image), _full_scale(image))
    notes += converted
    if wide and WIDE_NOTE not in notes:
        notes.append(WIDE_NOTE)
    if kind != "MPO" and _has_more_frames(image):  # a camera's MPO is a JPEG with previews behind it
        notes.append(FRAMES_NOTE)
    if kind not in (*LOSSY, "PNG"):
        notes.append(f"{kind} stored as PNG")
    if not notes:
        return Stored(data, suffix, ())
    return Stored(_encode(rgb, suffix), suffix, tuple(notes))


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


def _has_more_frames(image: "Image") -> bool:
    """Only now, behind the first frame's pixels: what comes after them may be broken, and is not used."""
    try:
        frames: int = getattr(image, "n_frames", 1)
    except Exception:  # there is something behind it, though it does not parse
        return True
    return frames > 1


def _upright(image: "Image") -> "tuple[Image, list[str]]":
    """The image as its EXIF orientation wants it shown."""
    import PIL.Image

    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # broken metadata says nothing about the pixels
        return image, []
    if orientation not in range(2, 9):
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
    return image.transpose(methods[orientation]), ["EXIF orientation applied"]


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
        raise ItemError("undecodable-image", "the image holds values that are not finite")
    low, high, note = 0.0, float(full_scale), WIDE_NOTE
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
        note = f"{'floats' if image.mode == 'F' else 'integers'} scaled from their range to 8-bit"
    scaled = (values - low) * 255 / ((high - low) or 1)
    pixels = np.rint(255 - scaled if negative else scaled).astype(np.uint8)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return PIL.Image.fromarray(pixels).convert("RGB"), [note]
    pixels[values == key] = 255
    return PIL.Image.fromarray(pixels).convert("RGB"), [note, "alpha flattened on white"]


def _encode(image: "Image", suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=image.info.get("icc_profile"))
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

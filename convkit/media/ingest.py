"""Bringing an image into a data set: as it is where it already is what models read, else as RGB.

An 8-bit RGB JPEG or PNG that stands upright is stored byte for byte. Anything else is decoded and stored again: lossy
originals as JPEG of quality 95 without chroma subsampling, all others as PNG. What was done is noted. Metadata that
does not parse never costs good pixels. PIL is imported only where an image is opened.
"""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.errors import ItemError
from convkit.media.images import FORMATS, MAX_FILE_BYTES, MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

LOSSY = {"JPEG": ".jpg", "MPO": ".jpg"}
ORIENTATION_TAG = 0x0112
WHITE = (255, 255, 255)
_PNG_BIT_DEPTH_AT = 24
_SIXTEEN_BIT_MAX = 65535


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
                kind, frames = image.format or "", getattr(image, "n_frames", 1)
                image.load()
                return _store(image, data, kind, frames)
        except ItemError:
            raise
        except PIL.Image.DecompressionBombError:
            raise ItemError("pixel-bomb", f"the image has more than {MAX_PIXELS:,} pixels") from None
        except PIL.UnidentifiedImageError:
            raise ItemError("undecodable-image", f"the image is not one of {', '.join(FORMATS)}") from None
        except Exception as error:  # whatever a decoder makes of hostile bytes
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ItemError("undecodable-image", f"the image does not decode: {reason}") from error


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ItemError("pixel-bomb", f"the image has {width:,} x {height:,} pixels; the limit is {MAX_PIXELS:,}")


def _store(image: "Image", data: bytes, kind: str, frames: int) -> Stored:
    suffix = LOSSY.get(kind, ".png")
    upright, turned = _upright(image)
    rgb, converted = _to_rgb(upright)
    notes = [*turned, *converted]
    if frames > 1 and kind != "MPO":  # a camera's MPO is a JPEG with previews behind it
        notes.append("first frame of an animation or of several pages")
    if kind not in (*LOSSY, "PNG"):
        notes.append(f"{kind} stored as PNG")
    if kind == "PNG" and data[_PNG_BIT_DEPTH_AT] > 8 and not notes:
        notes.append("16-bit scaled to 8-bit")
    if not notes:
        return Stored(data, suffix, ())
    return Stored(_encode(rgb, suffix), suffix, tuple(notes))


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


def _to_rgb(image: "Image") -> "tuple[Image, list[str]]":
    """The image in RGB, 8 bits a channel, nothing transparent."""
    import PIL.Image

    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(image), ["16-bit scaled to 8-bit" if mode != "F" else "float scaled to 8-bit"]
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = PIL.Image.new("RGB", image.size, WHITE)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat, ["alpha flattened on white"]
    if mode == "RGB":
        return image, []
    return image.convert("RGB"), [f"{mode} converted to RGB"]


def _scaled(image: "Image") -> "Image":
    """Wide integers and floats brought to 0..255 without clipping: by 65535 where they fit 16 bits, else by range."""
    import numpy as np
    import PIL.Image

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ItemError("undecodable-image", "the image holds values that are not finite")
    low, high = 0.0, float(_SIXTEEN_BIT_MAX)
    if image.mode == "F" or values.min() < low or values.max() > high:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255 / ((high - low) or 1))
    return PIL.Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _encode(image: "Image", suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()

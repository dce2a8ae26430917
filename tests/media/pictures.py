"""Make images for the tests, and compare stored images with references made by Pillow and numpy."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from convkit.media.ingest import IngestedImage

FOLDERS = ("nasty", "images/skimage", "docvqa/pages")


LOSSY_ERROR = 3.0
"""Mean pixel difference after one more JPEG compression at quality 95."""


def shared_files(root: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / "data" / folder).iterdir())]


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """Return the pixels of a stored image, as a model gets them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unchanged files keep their broken metadata
        with PIL.Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            return np.asarray(image).astype(int)


def reference(data: bytes) -> np.ndarray[Any, Any]:
    """Return the first frame upright, on white, in RGB; wide integers divided by 257, as floats."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(float)
            if "transparency" in image.info:
                values[values == image.info["transparency"]] = 65535
            return np.repeat((values / 257)[..., None], 3, axis=2)
        try:
            PIL.ImageOps.exif_transpose(image, in_place=True)
        except Exception:
            assert image.size  # the metadata is broken, the pixels are not
        if not image.has_transparency_data:
            return np.asarray(image.convert("RGB")).astype(int)
        rgba = np.asarray(image.convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        return rgba[..., :3] * alpha + 255 * (1 - alpha)


def check_stored(stored: IngestedImage, data: bytes) -> None:
    """Check the properties of every stored image."""
    with PIL.Image.open(io.BytesIO(stored.data), formats=["JPEG", "PNG"]) as image:
        assert stored.suffix == {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png"}[image.format or ""]
    assert (stored.data == data) == (stored.notes == ())
    difference = np.abs(pixels(stored.data) - reference(data))
    if stored.suffix == ".png":
        assert difference.max() <= 1  # rounding
    else:
        assert difference.mean() <= LOSSY_ERROR


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Make a PNG of any bit depth; `rows` contains a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(values: np.ndarray[Any, Any], byte_order: str, photometric: int = 1, bits: int = 16) -> bytes:
    """Make an uncompressed TIFF of 16-bit words (or packed 12-bit values) in one channel."""
    height, width = values.shape
    words = values.astype(f"{byte_order}u2").tobytes()
    if bits == 12:
        digits = "".join(f"{v:03x}" for v in values.ravel())
        words = bytes.fromhex(digits + "0" * (len(digits) % 2))
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 122), (277, 1), (278, height)]
    tags.append((279, len(words)))
    entries = b"".join(struct.pack(f"{byte_order}HHI", tag, 4, 1) + struct.pack(f"{byte_order}I", v) for tag, v in tags)
    mark = b"II*\0" if byte_order == "<" else b"MM\0*"
    directory = struct.pack(f"{byte_order}H", len(tags)) + entries + struct.pack(f"{byte_order}I", 0)
    return (mark + struct.pack(f"{byte_order}I", 8) + directory).ljust(122, b"\0") + words


def encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> PIL.Image.Image:
    """Make a smooth image, so that JPEG hardly changes it, with a different colour in every corner."""
    y, x = np.mgrid[0:40, 0:60]
    image = PIL.Image.fromarray(np.stack([x * 4, y * 6, 200 - x - y], axis=2).astype(np.uint8))
    if mode in ("L", "1", "LA"):
        image = image.convert("L")
    image = image.convert(mode)
    if image.mode in ("LA", "RGBA"):
        image.putalpha(PIL.Image.fromarray((x * 4).astype(np.uint8)))
    return image


RAMP = np.arange(0, 65536, 257 * 5, dtype=np.uint16).reshape(4, 13)

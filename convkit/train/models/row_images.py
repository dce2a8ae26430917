"""Read the images of a row: sizes from headers, pixels only once the row is known to fit."""

from pathlib import Path

import PIL.Image

from convkit.media.images import FORMATS, ImageProblem, inspect_dataset_image
from convkit.profiles import ImageSize
from convkit.schema import Row
from convkit.train.models.tokenize import RowError

_REMEDY = "Run convkit validate on the dataset, see CK2xx."


def paths(row: Row) -> list[str]:
    """Return the image paths of all turns in order, relative to the dataset's images directory."""
    return [path for turn in row.conversations for path in turn.images]


def sizes(row: Row, images: Path) -> list[ImageSize]:
    """Return the size of each image, from its header; raises RowError for an unusable one."""
    return [_size(row.id, images, path) for path in paths(row)]


def load(row: Row, images: Path) -> list[PIL.Image.Image]:
    """Load the images of a row in RGB; raises RowError for an unusable one."""
    return [_open(row.id, images, path) for path in paths(row)]


def _size(row_id: str, images: Path, path: str) -> ImageSize:
    header = inspect_dataset_image(images, False, path)
    if isinstance(header, ImageProblem):
        raise RowError(row_id, f"has an unusable image: {header.message}", _REMEDY)
    return ImageSize(header.width, header.height)


def _open(row_id: str, images: Path, path: str) -> PIL.Image.Image:
    try:
        with PIL.Image.open(images / path, formats=FORMATS) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # decoders raise any exception on corrupt bytes
        _size(row_id, images, path)  # reports a file removed since its header was read as missing
        raise RowError(row_id, f"has an image that does not decode: {path!r}: {error}", _REMEDY) from error

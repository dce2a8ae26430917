"""The images of a row, as every adapter reads them: sizes from headers, pixels only once the row is known to fit."""

from pathlib import Path

import PIL.Image

from convkit.media.images import FORMATS, ImageProblem, inspect_dataset_image
from convkit.profiles import ImageSize
from convkit.schema import Row
from convkit.train.models.tokenize import RowError

_REMEDY = "Validate the data set, see CK2xx."


def paths(row: Row) -> list[str]:
    """Relative to the data set's images, over all turns in order."""
    return [path for turn in row.conversations for path in turn.images]


def sizes(row: Row, images: Path) -> list[ImageSize]:
    """Width and height of each image, from its header; raises RowError."""
    return [_size(row.id, images, path) for path in paths(row)]


def load(row: Row, images: Path) -> list[PIL.Image.Image]:
    """The images of a row in RGB; raises RowError."""
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
    except Exception as error:  # whatever a decoder makes of hostile bytes
        _size(row_id, images, path)  # one that was removed since its header was read is named as missing
        raise RowError(row_id, f"has an image that does not decode: {path!r}: {error}", _REMEDY) from error

"""Thumbnails embedded in the page, bounded in number and bytes."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from convkit.errors import ItemError
from convkit.media.images import check_file_size, open_image, resolve_image_path

MAX_THUMBNAILS, MAX_BYTES = 120, 3 * 2**20
_SIDE, _QUALITY = 192, 80


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail of a dataset image, or the reason why there is none."""

    name: str
    data: str | None
    """A data: URI; None if the image cannot be shown."""
    reason: str
    """Why the image cannot be shown."""
    width: int = 0
    height: int = 0


class ThumbnailBudget:
    """Makes thumbnails up to a number and a size in bytes."""

    def __init__(self) -> None:
        self._count, self._bytes = MAX_THUMBNAILS, MAX_BYTES

    def thumbnail(self, images: Path, relative: str) -> Thumbnail:
        """Return a thumbnail of a dataset image; unreadable or invalid files never raise.

        Args:
            images: the images/ folder of the dataset.
            relative: the path in rows, valid by the row schema.
        """
        if not self._count or self._bytes <= 0:
            return Thumbnail(relative, None, "not shown: the limit of images per page is reached")
        try:
            jpeg, width, height = _make_jpeg(resolve_image_path(images, relative))
        except ItemError as refusal:
            return Thumbnail(relative, None, refusal.reason)
        except OSError as error:
            return Thumbnail(relative, None, f"cannot be read: {error.strerror}")
        self._count, self._bytes = self._count - 1, self._bytes - len(jpeg)
        return Thumbnail(relative, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", "", width, height)


def _make_jpeg(path: Path) -> tuple[bytes, int, int]:
    """Return the thumbnail as JPEG, with its width and height."""
    if not path.is_file():
        raise ItemError("not-a-file", "is not a regular file")
    check_file_size(path.stat().st_size)
    found = io.BytesIO()
    with path.open("rb") as file, open_image(file) as image:
        image.draft("RGB", (_SIDE, _SIDE))
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        small.save(found, "JPEG", quality=_QUALITY)
    return found.getvalue(), *small.size

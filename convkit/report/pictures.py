"""Small pictures that stand in the page itself, bounded in number and bytes."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from convkit.errors import ItemError
from convkit.media.images import check_file_size, open_image, resolve_image_path

MAX_PICTURES, MAX_BYTES = 120, 3 * 2**20
_SIDE, _QUALITY = 192, 80


@dataclass(frozen=True)
class Picture:
    """An image of the data set."""

    name: str
    data: str | None
    """A data: URI; None where it cannot be shown."""
    why: str
    """It cannot."""
    width: int = 0
    height: int = 0


class Budget:
    """Makes pictures until there are enough."""

    def __init__(self) -> None:
        self._pictures, self._bytes = MAX_PICTURES, MAX_BYTES

    def picture(self, images: Path, relative: str) -> Picture:
        """A thumbnail of an image of a data set; never raises for what the file is or holds.

        Args:
            images: the images/ folder.
            relative: the path as rows spell it; it follows the pattern of the row schema.
        """
        if not self._pictures or self._bytes <= 0:
            return Picture(relative, None, "not shown: the page has enough pictures")
        try:
            jpeg, width, height = _thumbnail(resolve_image_path(images, relative))
        except ItemError as refusal:
            return Picture(relative, None, refusal.reason)
        except OSError as error:
            return Picture(relative, None, f"cannot be read: {error.strerror}")
        self._pictures, self._bytes = self._pictures - 1, self._bytes - len(jpeg)
        return Picture(relative, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", "", width, height)


def _thumbnail(path: Path) -> tuple[bytes, int, int]:
    """JPEG, width and height."""
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

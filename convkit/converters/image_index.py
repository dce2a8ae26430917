"""Find the images of a published dataset in any folder layout.

Users unpack, flatten and convert published images. So an image is matched by the end of its path, in any folder and
with any image suffix.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from convkit.converters.image_store import IMAGE_SUFFIXES
from convkit.errors import SourceError
from convkit.utils.files import display_path


class ImageIndex:
    """Index the image files below a folder; it is scanned once, on first use.

    Args:
        root: the folder; hidden files and folders in it are skipped.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_stem: dict[str, list[str]] | None = None

    def find(self, wanted: str) -> str | None:
        """Return the file that best matches an annotation's path: the one with the most equal parts from the end.

        The suffix may differ, since published .png files are often JPEGs and get renamed or converted. Among equal
        matches, a file with the same suffix wins, then the first by path.

        Args:
            wanted: the path in the annotation, with slashes, such as `documents/x.png`.

        Returns:
            The file's path relative to the root, with slashes, or None.
        """
        path = PurePosixPath(wanted)
        candidates = self._stems().get(image_stem(wanted), ())
        return min(
            candidates,
            key=lambda found: (-_agreeing(PurePosixPath(found), path), not _same_suffix(found, wanted), found),
            default=None,
        )

    def size(self, path: str) -> int:
        """Return the size of an indexed file in bytes."""
        return (self._root / path).stat().st_size

    def __bool__(self) -> bool:
        return bool(self._stems())

    def _stems(self) -> dict[str, list[str]]:
        if self._by_stem is None:
            self._by_stem = {}
            for path in list_files(self._root):
                if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                    self._by_stem.setdefault(image_stem(path), []).append(path)
        return self._by_stem


def image_stem(path: str) -> str:
    """Return the last part of a path without an image suffix; other dots belong to the name."""
    name = PurePosixPath(path).name
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _agreeing(one: PurePosixPath, other: PurePosixPath) -> int:
    """Return the number of equal parent folders, counted from the file upwards."""
    pairs = zip(reversed(one.parts[:-1]), reversed(other.parts[:-1]), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one.parts), len(other.parts)) - 1)


def _same_suffix(one: str, other: str) -> bool:
    return os.path.splitext(one)[1].lower() == os.path.splitext(other)[1].lower()


def list_files(root: Path) -> Iterator[str]:
    """Yield the relative path of every visible file below a folder, sorted folder by folder.

    Raises:
        SourceError: a folder cannot be read, or the root is a file.
    """
    if root.is_file():
        raise SourceError(
            f"{display_path(str(root))} is a single file. Pass the folder that contains it and the images."
        )
    try:
        yield from _walk(os.fspath(root), "", ())
    except OSError as error:
        name = display_path(error.filename or os.fspath(root))
        raise SourceError(f"{name} cannot be read ({error.strerror}). Check the path and its permissions.") from error


def _walk(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a parent folder
        return
    with os.scandir(folder) as entries:
        children = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for child in children:
        if child.is_dir():
            yield from _walk(child.path, f"{prefix}{child.name}/", (*above, real))
        elif child.is_file():
            yield prefix + child.name

"""The files of a published image set, which people unpack, flatten and convert as they like.

So an image is found by the end of its path, wherever it is and whatever its suffix.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from convkit.converters.pictures import IMAGE_SUFFIXES
from convkit.errors import SourceError
from convkit.utils.files import display_path


class PictureIndex:
    """The image files below a folder, walked once and only when the first is looked for.

    Args:
        root: the folder; hidden files and folders in it are passed over.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_stem: dict[str, list[str]] | None = None

    def find(self, wanted: str) -> str | None:
        """The file that an annotation means: the one that agrees with its path in most parts, from the end.

        The suffix may differ, since many a .png is a JPEG and is renamed or converted. Of files that agree equally,
        one with the same suffix wins, then the first by path.

        Args:
            wanted: the path in the annotation, with slashes, such as `documents/x.png`.

        Returns:
            The file's path relative to the root, with slashes.
        """
        path = PurePosixPath(wanted)
        candidates = self._stems().get(stem_of(wanted), ())
        return min(
            candidates,
            key=lambda found: (-_agreeing(PurePosixPath(found), path), not _same_suffix(found, wanted), found),
            default=None,
        )

    def size(self, path: str) -> int:
        """Bytes of a file that was found."""
        return (self._root / path).stat().st_size

    def __bool__(self) -> bool:
        return bool(self._stems())

    def _stems(self) -> dict[str, list[str]]:
        if self._by_stem is None:
            self._by_stem = {}
            for path in files_below(self._root):
                if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                    self._by_stem.setdefault(stem_of(path), []).append(path)
        return self._by_stem


def stem_of(path: str) -> str:
    """The last part of a path without an image's suffix; other dots are part of the name."""
    name = PurePosixPath(path).name
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _agreeing(one: PurePosixPath, other: PurePosixPath) -> int:
    """How many folders agree, counted from the file upwards."""
    pairs = zip(reversed(one.parts[:-1]), reversed(other.parts[:-1]), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one.parts), len(other.parts)) - 1)


def _same_suffix(one: str, other: str) -> bool:
    return os.path.splitext(one)[1].lower() == os.path.splitext(other)[1].lower()


def files_below(root: Path) -> Iterator[str]:
    """Every file below a folder by relative path, sorted folder by folder; what is hidden is not the user's.

    Raises:
        SourceError: a folder cannot be read, or the root is a file.
    """
    if root.is_file():
        raise SourceError(f"{display_path(str(root))} is a single file. Pass the folder that holds it and the images.")
    try:
        yield from _walk(os.fspath(root), "", ())
    except OSError as error:
        name = display_path(error.filename or os.fspath(root))
        raise SourceError(f"{name} cannot be read ({error.strerror}). Check the path and its permissions.") from error


def _walk(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder above
        return
    with os.scandir(folder) as entries:
        children = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for child in children:
        if child.is_dir():
            yield from _walk(child.path, f"{prefix}{child.name}/", (*above, real))
        elif child.is_file():
            yield prefix + child.name

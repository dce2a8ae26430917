"""Annotations and the images that they name: what converters of published image sets share.

Such sets come as annotation files and folders of images, which people unpack, flatten and convert as they like. So an
image is found by the end of its path, wherever it is, and all that is annotated of the same images is one item: each
image is read once and stored once, however many rows show it.
"""

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.converters.base import Converter, Exclude, Item, Record, Reject
from convkit.converters.pictures import PictureOptions, from_file
from convkit.dataset import MAX_LINE_BYTES, read_lines
from convkit.errors import ItemError, SourceError
from convkit.files import printable
from convkit.schema import Conversation

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"])
BAD_ANNOTATION = "bad-annotation"
_BOM = b"\xef\xbb\xbf"


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
        SourceError: a folder cannot be read.
    """
    try:
        yield from _walk(os.fspath(root), "", ())
    except OSError as error:
        name = printable(error.filename or os.fspath(root))
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


def annotation_files(root: Path, names: Iterable[str], layouts: str) -> dict[str, str]:
    """Where the annotation files of these names are, at any depth: name -> relative path, in the order of the names.

    Args:
        layouts: what is said to have been looked for when there is none.

    Raises:
        SourceError: there is none, or there are two of a name.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for path in files_below(root):
        found.get(PurePosixPath(path).name, []).append(path)
    for name, paths in found.items():
        if len(paths) > 1:
            listed = ", ".join(map(printable, paths[:4]))
            raise SourceError(f"{root} holds {len(paths)} files {name}: {listed}. Point --source at the folder of one.")
    if not any(found.values()):
        raise SourceError(f"{root} holds no annotations. Looked for {layouts}. Point --source at a folder above them.")
    return {name: paths[0] for name, paths in found.items() if paths}


class Fields(BaseModel):
    """What is read of one annotation; whatever else it holds is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


F = TypeVar("F", bound=Fields)


def json_lines(root: Path, path: str, fields: type[F]) -> Iterator[tuple[str, F] | Reject]:
    """Each line of a JSON Lines file with its address; empty lines are nothing.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        for line in read_lines(root / path):
            address = f"{printable(path)}:{line.number}"
            raw = line.raw.removeprefix(_BOM) if line.number == 1 else line.raw
            if line.overlong:
                yield Reject(address, BAD_ANNOTATION, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
            elif raw.strip():
                yield checked(address, partial(fields.model_validate_json, raw))
    except OSError as error:
        raise unreadable(root / path, error) from error


def checked(address: str, read: Callable[[], F]) -> tuple[str, F] | Reject:
    """An annotation with its address, or the reason why it is none."""
    try:
        return address, read()
    except ValidationError as error:
        return Reject(address, BAD_ANNOTATION, _first(error))


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error of an annotation file."""
    return SourceError(f"{printable(os.fspath(path))} cannot be read ({error.strerror}). Check its permissions.")


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, ("/".join(map(str, first["loc"])), first["msg"])))


def fill(template: str, **values: str) -> str:
    """Put values into a template in one pass: braces inside a value, or of another name, stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def two_words(default: tuple[str, str]) -> Callable[[Any], Any]:
    """Reads `A,B`, as the command line spells a pair; nothing means the default.

    Raises:
        ValueError: two different words are wanted.
    """

    def read(value: Any) -> Any:
        words = tuple(word.strip() for word in value.split(",")) if isinstance(value, str) and value else value
        if words and (len(words) != 2 or not all(words) or words[0] == words[1]):
            raise ValueError("give two different words, separated by a comma")
        return words or default

    return read


class AnnotatedOptions(PictureOptions):
    """Options of every converter of annotation files and folders of images."""

    images: Path | None = Field(
        None, exclude=True, description="The folder with the images, at any depth. Default: the source itself."
    )
    limit: int | None = Field(None, ge=1, description="At most this many annotations of each split.")


@dataclass(frozen=True)
class Annotation:
    """One annotated unit; converters add fields of their own, all that their rows depend on."""

    address: str
    key: str
    """What tells it from all others of its split."""
    images: tuple[str, ...]
    """The images it names, in order, each a path with slashes."""


@dataclass(frozen=True)
class Located:
    """An image file."""

    path: str
    """Relative to the folder with the images."""
    size: int
    stem: str
    """Its path in rows, without suffix."""


A = TypeVar("A", bound=Annotation)


@dataclass(frozen=True)
class Pictured(Item, Generic[A]):
    """One image, or one sequence of images, and all that is annotated of it."""

    split: str
    pictures: tuple[Located, ...]
    annotations: tuple[A, ...]

    @property
    def units(self) -> int:
        """Its annotations."""
        return len(self.annotations)


class AnnotatedPictures(Converter[Pictured[A]]):
    """Base of converters that differ in how they read annotations, and in what row they make of one."""

    options: AnnotatedOptions

    @abstractmethod
    def splits(self) -> Iterator[tuple[str, Iterable[A | Reject]]]:
        """The annotations of each split, in the order of the source.

        Raises:
            SourceError: there are none; the message names the layouts that were looked for.
        """

    @abstractmethod
    def rows(self, split: str, annotations: tuple[A, ...], images: tuple[str, ...]) -> tuple[Conversation, ...]:
        """The rows of annotations of the same images: of one, unless `batches` says otherwise."""

    def batches(self, annotations: tuple[A, ...]) -> Iterator[tuple[A, ...]]:
        """The annotations of the same images by what becomes rows together."""
        return ((annotation,) for annotation in annotations)

    def items(self) -> Iterator[Pictured[A] | Reject | Exclude]:
        """Split by split: what is refused, then the images in the order in which they are first named."""
        splits = self.splits()
        first = next(splits)  # a source without annotations is refused before its images are looked for
        index = PictureIndex(self._pictures_root)
        if not index:
            raise SourceError(
                f"{self._pictures_root} holds no images, which are published apart from the annotations. Unpack them "
                "below the source, or name their folder with --images."
            )
        for split, annotations in (first, *splits):
            yield from self._listed(split, annotations, index)

    @property
    def _pictures_root(self) -> Path:
        return self.options.images or self.root

    def _listed(
        self, split: str, annotations: Iterable[A | Reject], index: PictureIndex
    ) -> Iterator[Pictured[A] | Reject | Exclude]:
        found: dict[tuple[Located, ...], list[A]] = {}
        desk = _Desk(split, index)
        sound = beyond = 0
        for annotation in annotations:
            if self.options.limit is not None and sound >= self.options.limit:
                beyond += 1
                continue
            try:
                if isinstance(annotation, Reject):
                    yield annotation
                else:
                    found.setdefault(desk.locate(annotation), []).append(annotation)
                    sound += 1
            except ItemError as error:
                yield Reject(annotation.address, error.rule, error.reason)
        for pictures, of_them in found.items():
            yield Pictured(of_them[0].address, split, pictures, tuple(of_them))
        if beyond:
            yield Exclude("beyond --limit", beyond)

    def convert(self, item: Pictured[A]) -> Iterator[Record | Reject]:
        """The images come with the first of the rows that show them."""
        media: dict[str, bytes | Path] = {}
        images: list[str] = []
        notes: list[str] = []
        for located in item.pictures:
            try:
                picture = from_file(self._pictures_root / located.path, located.stem, self.options)
            except ItemError as error:
                reason = f"{PurePosixPath(located.path).name}: {error.reason}"
                yield from (Reject(a.address, error.rule, reason) for a in item.annotations)
                return
            media[picture.path] = picture.content
            images.append(picture.path)
            notes += picture.notes
        for batch in self.batches(item.annotations):
            try:
                rows = self.rows(item.split, batch, tuple(images))
            except ValidationError as error:
                reason = f"the row would break the schema: {_first(error)}"
                yield from (Reject(a.address, "invalid-row", reason) for a in batch)
            else:
                yield Record(item.split, rows, media, len(batch), tuple(notes))
                media, notes = {}, []


class _Desk:
    """Looks up the images of one split's annotations, and refuses what would clash with an earlier one."""

    def __init__(self, split: str, index: PictureIndex) -> None:
        self._split = split
        self._index = index
        self._addresses: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def locate(self, annotation: Annotation) -> tuple[Located, ...]:
        """The files of its images.

        Raises:
            ItemError: its id or the name of an image is taken, or an image is missing.
        """
        earlier = self._addresses.setdefault(annotation.key, annotation.address)
        if earlier != annotation.address:
            raise ItemError("duplicate-id", f"{earlier} has the id {annotation.key} already")
        found = [(image, self._index.find(image)) for image in annotation.images]
        if missing := [image for image, path in found if path is None]:
            raise ItemError("missing-image", f"not in the source: {', '.join(missing)}")
        return tuple(self._located(image, path) for image, path in found if path is not None)

    def _located(self, image: str, path: str) -> Located:
        stem = f"{self._split}/{stem_of(image)}"
        taken = self._paths.setdefault(stem, path)
        if taken != path:
            raise ItemError("duplicate-name", f"{image} would be stored under the name of {printable(taken)}")
        return Located(path, self._index.size(path), stem)

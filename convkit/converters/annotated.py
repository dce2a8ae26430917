"""Annotations and the images that they name: what converters of published image sets share.

All that is annotated of the same images is one item: each image is read once and stored once, however many rows show
it. Annotation files are found by their official names, at any depth, and images by the end of their paths.
"""

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.converters.base import Converter, Exclude, Item, Record, Reject, broken_schema, first_problem
from convkit.converters.picture_index import PictureIndex, files_below, stem_of
from convkit.converters.pictures import Picture, PictureOptions, from_file
from convkit.dataset import MAX_LINE_BYTES, read_lines
from convkit.errors import ItemError, SourceError
from convkit.schema import Row
from convkit.utils.files import display_path

BAD_ANNOTATION = "bad-annotation"
_BOM = b"\xef\xbb\xbf"


def annotation_files(root: Path, splits: Iterable[str], names: Sequence[str], others: str = "") -> dict[str, str]:
    """Where the annotations of each split are, at any depth: official name -> relative path, as far as there are any.

    Args:
        names: of the file of a split, {split} for the split; of several that are there, the first wins.
        others: what was looked for in vain before.

    Raises:
        SourceError: there is none, or there are two of a name.
    """
    found: dict[str, list[str]] = {name.format(split=split): [] for split in splits for name in names}
    for path in files_below(root):
        found.get(PurePosixPath(path).name, []).append(path)
    for name, paths in found.items():
        if len(paths) > 1:
            listed = ", ".join(map(display_path, paths[:4]))
            raise SourceError(f"{root} holds {len(paths)} files {name}: {listed}. Point --source at the folder of one.")
    if not any(found.values()):
        raise SourceError(
            f"{root} holds no annotations. Looked for {', '.join(found)}{others and f', or {others}'}, at any depth. "
            "Point --source at a folder above them."
        )
    places = ((split, found[name.format(split=split)]) for split in splits for name in reversed(names))
    return {split: paths[0] for split, paths in places if paths}


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
            address = f"{display_path(path)}:{line.number}"
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
        return Reject(address, BAD_ANNOTATION, first_problem(error))


def unreadable(path: Path, error: OSError) -> SourceError:
    """The error of an annotation file."""
    return SourceError(f"{display_path(os.fspath(path))} cannot be read ({error.strerror}). Check its permissions.")


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
K = TypeVar("K")


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


class AnnotatedPictures(Converter[Any], Generic[A]):
    """Base of converters that differ in how they read annotations, and in what row they make of one."""

    options: AnnotatedOptions
    split_names: ClassVar[Mapping[str, str]]
    """Our split by the official name, in our order."""
    file_names: ClassVar[tuple[str, ...]]
    """Of the annotations, {split} for the official name; of several that are there, the first is read."""
    other_layouts: ClassVar[str] = ""
    """What else may hold annotations, for the message that there are none."""

    @abstractmethod
    def annotations(self, official: str, path: str) -> Iterator[A | Reject]:
        """The annotations of a file, in its order.

        Args:
            official: the official name of its split.
            path: relative to the source.
        """

    @abstractmethod
    def rows(self, split: str, annotations: tuple[A, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """The rows of annotations of the same images: of one, unless `batches` says otherwise."""

    def batches(self, annotations: tuple[A, ...]) -> Iterator[tuple[A, ...]]:
        """The annotations of the same images by what becomes rows together."""
        return ((annotation,) for annotation in annotations)

    def count(self) -> int:
        """The number of annotations; no image is looked for."""
        return sum(1 for _, annotations in self._splits() for _ in annotations)

    def items(self) -> Iterator[Item | Reject | Exclude]:
        """Split by split, in the order in which images are first named."""
        splits = self._splits()  # a source without annotations is refused before its images are looked for
        index = PictureIndex(self._pictures_root)
        if not index:
            raise SourceError(
                f"{self._pictures_root} holds no images, which are published apart from the annotations. Unpack them "
                "below the source, or name their folder with --images."
            )
        for split, annotations in splits:
            for entry in self.gather(annotations, _Desk(split, index).locate):
                if isinstance(entry, Reject | Exclude):
                    yield entry
                else:
                    pictures, of_them = entry
                    yield Pictured(of_them[0].address, split, pictures, of_them)

    def _splits(self) -> list[tuple[str, Iterator[A | Reject]]]:
        """The annotations of each split that is there.

        Raises:
            SourceError: there are none; the message names the files that were looked for.
        """
        files = annotation_files(self.root, self.split_names, self.file_names, self.other_layouts)
        return [(self.split_names[official], self.annotations(official, path)) for official, path in files.items()]

    @property
    def _pictures_root(self) -> Path:
        return self.options.images or self.root

    def gather(
        self, annotations: Iterable[A | Reject], locate: Callable[[A], K]
    ) -> Iterator[tuple[K, tuple[A, ...]] | Reject | Exclude]:
        """The annotations of a split by what they show, as far as the limit goes.

        What is refused keeps its place among them: all of it at once would look like a source that is all bad.
        """
        found: dict[K | Reject, list[A]] = {}
        sound = beyond = 0
        for annotation in annotations:
            if self.options.limit is not None and sound >= self.options.limit:
                beyond += 1
                continue
            try:
                if isinstance(annotation, Reject):
                    found[annotation] = []
                else:
                    found.setdefault(locate(annotation), []).append(annotation)
                    sound += 1
            except ItemError as error:
                found[Reject(annotation.address, error.rule, error.reason)] = []
        for shown, of_them in found.items():
            yield shown if isinstance(shown, Reject) else (shown, tuple(of_them))
        if beyond:
            yield Exclude("beyond --limit", beyond)

    def convert(self, item: Pictured[A]) -> Iterator[Record | Reject]:
        """Read the images, and make the rows that show them."""
        pictures: list[Picture] = []
        for located in item.pictures:
            try:
                pictures.append(from_file(self._pictures_root / located.path, located.stem, self.options))
            except ItemError as error:
                reason = f"{PurePosixPath(located.path).name}: {error.reason}"
                yield from (Reject(a.address, error.rule, reason) for a in item.annotations)
                return
        yield from self.records(item.split, item.annotations, pictures)

    def records(self, split: str, annotations: tuple[A, ...], pictures: Sequence[Picture]) -> Iterator[Record | Reject]:
        """What annotations of the same images become; the images come with the first of the rows."""
        images = tuple(picture.path for picture in pictures)
        media: dict[str, bytes | Path] = {picture.path: picture.content for picture in pictures}
        notes = tuple(note for picture in pictures for note in picture.notes)
        for batch in self.batches(annotations):
            try:
                rows = self.rows(split, batch, images)
            except ValidationError as error:
                yield from (Reject(a.address, "invalid-row", broken_schema(error)) for a in batch)
            else:
                yield Record(split, rows, media, len(batch), notes)
                media, notes = {}, ()


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
            raise ItemError("duplicate-name", f"{image} would be stored under the name of {display_path(taken)}")
        return Located(path, self._index.size(path), stem)

"""Base class of converters for published sets of annotation files and images.

All annotations of the same images form one item, so each image is read and stored once, however many rows use it.
Annotation files are found by their official names at any depth, and images by the end of their paths.
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

from convkit.converters.base import Converter, Exclude, Item, Record, Reject, first_problem, schema_error
from convkit.converters.image_index import ImageIndex, image_stem, list_files
from convkit.converters.image_store import ImageOptions, StoredImage, store_file
from convkit.dataset import MAX_LINE_BYTES, read_lines
from convkit.errors import ItemError, SourceError
from convkit.schema import Row
from convkit.utils.files import display_path

BAD_ANNOTATION = "bad-annotation"
_BOM = b"\xef\xbb\xbf"


def find_annotation_files(root: Path, splits: Iterable[str], names: Sequence[str], others: str = "") -> dict[str, str]:
    """Return the annotation file of each split that exists: official split name -> relative path, at any depth.

    Args:
        names: possible file names of a split, with {split} for its name; the first that exists is used.
        others: other layouts that were already searched for, for the error message.

    Raises:
        SourceError: there is no annotation file, or two of the same name.
    """
    found: dict[str, list[str]] = {name.format(split=split): [] for split in splits for name in names}
    for path in list_files(root):
        found.get(PurePosixPath(path).name, []).append(path)
    for name, paths in found.items():
        if len(paths) > 1:
            first = ", ".join(map(display_path, paths[:4]))
            raise SourceError(
                f"{root} contains {len(paths)} files {name}: {first}. Point --source at the folder of one."
            )
    if not any(found.values()):
        raise SourceError(
            f"{root} contains no annotations. Looked for {', '.join(found)}{others and f', or {others}'}, at any "
            "depth. Point --source at a folder above them."
        )
    by_split = ((split, found[name.format(split=split)]) for split in splits for name in reversed(names))
    return {split: paths[0] for split, paths in by_split if paths}


class AnnotationModel(BaseModel):
    """Base class of the fields read from one annotation; all other fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


F = TypeVar("F", bound=AnnotationModel)


def read_annotation_lines(root: Path, path: str, fields: type[F]) -> Iterator[tuple[str, F] | Reject]:
    """Yield each non-empty line of a JSON Lines file with its address.

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
                yield validate_annotation(address, partial(fields.model_validate_json, raw))
    except OSError as error:
        raise read_error(root / path, error) from error


def validate_annotation(address: str, read: Callable[[], F]) -> tuple[str, F] | Reject:
    """Return an annotation with its address, or a reject with the validation error."""
    try:
        return address, read()
    except ValidationError as error:
        return Reject(address, BAD_ANNOTATION, first_problem(error))


def read_error(path: Path, error: OSError) -> SourceError:
    """Return the error for an annotation file that cannot be read."""
    return SourceError(f"{display_path(os.fspath(path))} cannot be read ({error.strerror}). Check its permissions.")


def fill_template(template: str, **values: str) -> str:
    """Insert values into a template in one pass; braces inside values and unknown names stay unchanged."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def word_pair(default: tuple[str, str]) -> Callable[[Any], Any]:
    """Return a validator that parses two words `A,B` from the command line; no value means the default.

    Raises:
        ValueError: the value is not two different words.
    """

    def read(value: Any) -> Any:
        words = tuple(word.strip() for word in value.split(",")) if isinstance(value, str) and value else value
        if words and (len(words) != 2 or not all(words) or words[0] == words[1]):
            raise ValueError("give two different words, separated by a comma")
        return words or default

    return read


class AnnotatedOptions(ImageOptions):
    """Options shared by all converters of annotation files and image folders."""

    images: Path | None = Field(
        None, exclude=True, description="Folder that contains the images, at any depth. Default: the source."
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of annotations per split.")


@dataclass(frozen=True)
class Annotation:
    """Hold one annotation; subclasses add all fields that their rows depend on."""

    address: str
    key: str
    """The annotation's id, unique within its split."""
    images: tuple[str, ...]
    """The images that it refers to, in order, as paths with slashes."""


@dataclass(frozen=True)
class Located:
    """Hold the location of an image file."""

    path: str
    """The path relative to the images folder."""
    size: int
    stem: str
    """The path in rows, without its suffix."""


A = TypeVar("A", bound=Annotation)
K = TypeVar("K")


@dataclass(frozen=True)
class Pictured(Item, Generic[A]):
    """Hold one image, or one sequence of images, with all its annotations."""

    split: str
    pictures: tuple[Located, ...]
    annotations: tuple[A, ...]

    @property
    def units(self) -> int:
        """Return the number of annotations."""
        return len(self.annotations)


class AnnotatedImages(Converter[Any], Generic[A]):
    """Base class of converters that read annotations and make rows of them."""

    options: AnnotatedOptions
    split_names: ClassVar[Mapping[str, str]]
    """The dataset's split name by official split name, in output order."""
    file_names: ClassVar[tuple[str, ...]]
    """Names of a split's annotation file, with {split} for the official name; the first that exists is read."""
    annotation_fields: ClassVar[type[AnnotationModel]]
    """The fields that are read from each annotation."""
    other_layouts: ClassVar[str] = ""
    """Other layouts that may hold annotations, for the error message if none is found."""

    def read_annotations(self, path: str) -> Iterator[tuple[str, Any] | Reject]:
        """Yield the fields of each annotation of a file with its address, in order; by default from JSON Lines."""
        return read_annotation_lines(self.root, path, self.annotation_fields)

    @abstractmethod
    def annotation(self, official: str, address: str, fields: Any) -> A | Reject:
        """Return the annotation with the given fields.

        Args:
            official: the official name of its split.
            address: its location in the source.
            fields: an instance of `annotation_fields`.
        """

    @abstractmethod
    def rows(self, split: str, annotations: tuple[A, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """Return the rows of one batch of annotations of the same images."""

    def batches(self, annotations: tuple[A, ...]) -> Iterator[tuple[A, ...]]:
        """Yield the annotations of the same images in batches that become rows together; by default one each."""
        return ((annotation,) for annotation in annotations)

    def annotations(self, official: str, path: str) -> Iterator[A | Reject]:
        """Yield the annotations of a file, which belongs to a split of the official name."""
        for read in self.read_annotations(path):
            yield read if isinstance(read, Reject) else self.annotation(official, *read)

    def count(self) -> int:
        """Return the number of annotations, without searching for images."""
        return sum(1 for _, annotations in self._splits() for _ in annotations)

    def items(self) -> Iterator[Item | Reject | Exclude]:
        """Yield items split by split, in the order in which images are first used."""
        splits = self._splits()  # fail on missing annotations before searching for images
        index = ImageIndex(self._images_root)
        if not index:
            raise SourceError(
                f"{self._images_root} contains no images, which are published separately from the annotations. Unpack "
                "them below the source, or pass their folder with --images."
            )
        for split, annotations in splits:
            for entry in self.group_by_images(annotations, _ImageLookup(split, index).locate):
                if isinstance(entry, Reject | Exclude):
                    yield entry
                else:
                    images, members = entry
                    yield Pictured(members[0].address, split, images, members)

    def _splits(self) -> list[tuple[str, Iterator[A | Reject]]]:
        """Return the annotations of each split that exists.

        Raises:
            SourceError: no annotation file was found; the message lists the expected names.
        """
        files = find_annotation_files(self.root, self.split_names, self.file_names, self.other_layouts)
        return [(self.split_names[official], self.annotations(official, path)) for official, path in files.items()]

    @property
    def _images_root(self) -> Path:
        return self.options.images or self.root

    def group_by_images(
        self, annotations: Iterable[A | Reject], locate: Callable[[A], K]
    ) -> Iterator[tuple[K, tuple[A, ...]] | Reject | Exclude]:
        """Group the annotations of a split by their images, up to `--limit`.

        Rejects keep their position. If they came first, the error budget would see a source with bad entries only.
        """
        found: dict[K | Reject, list[A]] = {}
        accepted = beyond = 0
        for annotation in annotations:
            if self.options.limit is not None and accepted >= self.options.limit:
                beyond += 1
                continue
            try:
                if isinstance(annotation, Reject):
                    found[annotation] = []
                else:
                    found.setdefault(locate(annotation), []).append(annotation)
                    accepted += 1
            except ItemError as error:
                found[Reject(annotation.address, error.rule, error.reason)] = []
        for key, members in found.items():
            yield key if isinstance(key, Reject) else (key, tuple(members))
        if beyond:
            yield Exclude("beyond --limit", beyond)

    def convert(self, item: Pictured[A]) -> Iterator[Record | Reject]:
        """Read the images and make the rows that use them."""
        stored: list[StoredImage] = []
        for located in item.pictures:
            try:
                stored.append(store_file(self._images_root / located.path, located.stem, self.options))
            except ItemError as error:
                reason = f"{PurePosixPath(located.path).name}: {error.reason}"
                yield from (Reject(a.address, error.rule, reason) for a in item.annotations)
                return
        yield from self.records(item.split, item.annotations, stored)

    def records(
        self, split: str, annotations: tuple[A, ...], stored: Sequence[StoredImage]
    ) -> Iterator[Record | Reject]:
        """Yield the records of annotations of the same images; the first record carries the images."""
        images = tuple(image.path for image in stored)
        media: dict[str, bytes | Path] = {image.path: image.content for image in stored}
        notes = tuple(note for image in stored for note in image.notes)
        for batch in self.batches(annotations):
            try:
                rows = self.rows(split, batch, images)
            except ValidationError as error:
                yield from (Reject(a.address, "invalid-row", schema_error(error)) for a in batch)
            else:
                yield Record(split, rows, media, len(batch), notes)
                media, notes = {}, ()


class _ImageLookup:
    """Find the images of one split's annotations, and reject annotations that conflict with earlier ones."""

    def __init__(self, split: str, index: ImageIndex) -> None:
        self._split = split
        self._index = index
        self._addresses: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def locate(self, annotation: Annotation) -> tuple[Located, ...]:
        """Return the image files of an annotation.

        Raises:
            ItemError: its id or an image name is already in use, or an image is missing.
        """
        earlier = self._addresses.setdefault(annotation.key, annotation.address)
        if earlier != annotation.address:
            raise ItemError("duplicate-id", f"{earlier} has the id {annotation.key} already")
        found = [(image, self._index.find(image)) for image in annotation.images]
        if missing := [image for image, path in found if path is None]:
            raise ItemError("missing-image", f"not in the source: {', '.join(missing)}")
        return tuple(self._located(image, path) for image, path in found if path is not None)

    def _located(self, image: str, path: str) -> Located:
        stem = f"{self._split}/{image_stem(image)}"
        taken = self._paths.setdefault(stem, path)
        if taken != path:
            raise ItemError("duplicate-name", f"{image} would be stored under the name of {display_path(taken)}")
        return Located(path, self._index.size(path), stem)

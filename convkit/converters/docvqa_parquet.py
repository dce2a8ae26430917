"""Read DocVQA's questions from the Hub's Parquet files: a page, a question in several languages, all answers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from convkit.converters import image_store, parquet
from convkit.converters.annotated import AnnotationModel, validate_annotation
from convkit.converters.base import Reject
from convkit.converters.parquet import Layout, RowGroup
from convkit.errors import ItemError

LAYOUTS = {"questions": Layout(("query",), ("id", "answers"))}

_Text = Annotated[str, Field(pattern=r"\S")]


class _Query(AnnotationModel):
    en: _Text


class QuestionRow(AnnotationModel):
    """The question fields of one row."""

    id: str | None = None
    query: _Query
    answers: list[_Text] | None = None


@dataclass(frozen=True)
class Page:
    """Locate a page and identify it by its digest."""

    group: RowGroup
    number: int
    """The number of the row in its file."""
    digest: int


def read_questions(root: Path, images: Path, files: Iterable[str]) -> Iterator[tuple[str, Page, QuestionRow] | Reject]:
    """Yield every question with its address and page, in order, or a reject; images are hashed, not decoded.

    Args:
        images: the folder of images that are stored as paths only.
    """
    for file in files:
        for group in parquet.row_groups(root, file, LAYOUTS):
            number = group.first - 1
            try:
                for number, row in parquet.read_rows(root, group):
                    address = f"{file}:{number}"
                    try:
                        yield _read_question(images, group, number, address, row)
                    except ItemError as error:
                        yield Reject(address, error.rule, error.reason)
            except ItemError as error:
                left = group.first + group.rows - number - 1
                yield Reject(f"{file}:{number + 1}", error.rule, error.reason, left)


def _read_question(
    images: Path, group: RowGroup, number: int, address: str, row: parquet.RawRow | ItemError
) -> tuple[str, Page, QuestionRow] | Reject:
    if isinstance(row, ItemError):
        raise row
    read = validate_annotation(address, partial(QuestionRow.model_validate, row))
    if isinstance(read, Reject):
        return read
    return address, Page(group, number, image_store.image_digest(page_image(images, group, row))), read[1]


def page_image(root: Path, group: RowGroup, row: parquet.RawRow) -> parquet.ImageSource:
    """Return the page image of a row.

    Raises:
        ItemError: the row has no image, or more than one.
    """
    found = parquet.row_images(group, row)
    if len(found) != 1:
        raise ItemError("missing-image" if not found else "image-count", f"the row has {len(found)} images, not one")
    return parquet.resolve_image(root, 0, found[0])

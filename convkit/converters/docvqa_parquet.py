"""DocVQA's questions in Parquet files as on the hub: a page, a question in several languages, and all answers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from convkit.converters import parquet, pictures
from convkit.converters.annotated import Fields, checked
from convkit.converters.base import Reject
from convkit.converters.parquet import Layout, RowGroup
from convkit.errors import ItemError

LAYOUTS = {"questions": Layout(("query",), ("id", "answers"))}

_Text = Annotated[str, Field(pattern=r"\S")]


class _Query(Fields):
    en: _Text


class Fact(Fields):
    """What a row says."""

    id: str | None = None
    query: _Query
    answers: list[_Text] | None = None


@dataclass(frozen=True)
class Page:
    """Where a page is shown, and what tells that it is shown elsewhere."""

    group: RowGroup
    number: int
    """Of the row, in its file."""
    digest: int


def facts(root: Path, images: Path, files: Iterable[str]) -> Iterator[tuple[str, Page, Fact] | Reject]:
    """Every row with its address, in order, or why it cannot be used; images are read, but not decoded.

    Args:
        images: the folder that images without bytes are in.
    """
    for file in files:
        for group in parquet.row_groups(root, file, LAYOUTS):
            number = group.first - 1
            try:
                for number, row in parquet.rows(root, group):
                    address = f"{file}:{number}"
                    try:
                        yield _fact(images, group, number, address, row)
                    except ItemError as error:
                        yield Reject(address, error.rule, error.reason)
            except ItemError as error:
                left = group.first + group.rows - number - 1
                yield Reject(f"{file}:{number + 1}", error.rule, error.reason, left)


def _fact(
    images: Path, group: RowGroup, number: int, address: str, row: parquet.RawRow | ItemError
) -> tuple[str, Page, Fact] | Reject:
    if isinstance(row, ItemError):
        raise row
    read = checked(address, partial(Fact.model_validate, row))
    if isinstance(read, Reject):
        return read
    return address, Page(group, number, pictures.digest_of(image(images, group, row))), read[1]


def image(root: Path, group: RowGroup, row: parquet.RawRow) -> parquet.Image:
    """The page that a row shows.

    Raises:
        ItemError: there is none, or more than one.
    """
    found = parquet.images_of(group, row)
    if len(found) != 1:
        raise ItemError("missing-image" if not found else "image-count", f"the row has {len(found)} images, not one")
    return parquet.image(root, 0, found[0])

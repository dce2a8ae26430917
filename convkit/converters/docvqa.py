"""Convert DocVQA, task 1: questions about scanned pages, with all accepted answers.

Layouts, at any depth:
    {train,val,test}_v1.0_withQT.json    the release, or older names without `_withQT`: one object whose `data` is the
                                         list of questions; pages in `documents/` or any other folders
    *.parquet                            the Hub's columns image, query (by language; English is used), answers and id
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from convkit.converters import docvqa_parquet, image_store, parquet
from convkit.converters.annotated import (
    BAD_ANNOTATION,
    AnnotatedImages,
    AnnotatedOptions,
    Annotation,
    AnnotationModel,
    Pictured,
    fill_template,
    read_error,
    validate_annotation,
)
from convkit.converters.base import Exclude, Item, Record, Reject
from convkit.converters.docvqa_parquet import Page, QuestionRow
from convkit.converters.image_index import image_stem, list_files
from convkit.converters.image_store import IMAGE_SUFFIXES
from convkit.converters.parquet import RowGroup
from convkit.errors import ItemError, SourceError
from convkit.schema import Row, Turn
from convkit.utils.files import display_path
from convkit.utils.progress import Progress, ignore_progress

UNLABELLED_SPLIT = "test"
"""The split whose answers are not published."""


class DocVQAOptions(AnnotatedOptions):
    """Options of the `docvqa` converter."""

    prompt_template: str = Field(
        "{question}\nAnswer briefly.",
        pattern=r"\{question\}",
        description="User prompt; {question} is replaced by the question.",
    )
    answer: Literal["first", "most_frequent", "all_rows"] = Field(
        "most_frequent",
        description="Accepted answer to train on: the first, the most frequent (the first of equals), or one row "
        "per different answer.",
    )
    questions_per_row: Literal["one", "all"] = Field(
        "one",
        description="One row per question, or one row per page with its questions as turns. Pages with a missing "
        "answer, as in test, always get one row per question.",
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of questions per split.")

    @model_validator(mode="after")
    def _one_answer_a_turn(self) -> Self:
        if self.answer == "all_rows" and self.questions_per_row == "all":
            raise SourceError(
                "--answer all_rows makes one row per answer, which conflicts with --questions_per_row all. "
                "Choose --questions_per_row one, or another --answer."
            )
        return self


_Text = Annotated[str, Field(pattern=r"\S")]


class _Datum(AnnotationModel):
    questionId: int = Field(ge=0)  # noqa: N815, the source's name
    question: _Text
    image: _Text
    docId: int  # noqa: N815, the source's name
    ucsf_document_id: str | None = None
    ucsf_document_page_no: str | None = None
    question_types: list[str] | None = None
    answers: list[_Text] | None = None


@dataclass(frozen=True)
class Question(Annotation):
    """Hold a question about one page; its key is its number."""

    question_id: int | str
    question: str
    answers: tuple[str, ...]
    """The accepted answers, empty if there are none."""
    group: str
    ucsf_document_id: str | None
    page: str | None
    types: tuple[str, ...] | None


@dataclass(frozen=True)
class Pages(Item):
    """Hold a row group with all questions about the pages that appear first in it."""

    group: RowGroup
    split: str
    pages: tuple[tuple[int, tuple[Question, ...]], ...]
    """The questions about each page, with the number of the page's row."""

    @property
    def units(self) -> int:
        """Return the number of questions."""
        return sum(len(questions) for _, questions in self.pages)


class DocVQA(AnnotatedImages[Question]):
    """Convert a question to one row, or a page with all its questions; the rows of a document form one group."""

    name = "docvqa"
    unit = "question"
    version = 3
    Options = DocVQAOptions
    default_source = "hub:nielsr/docvqa_1200_examples/data/*.parquet"
    suffixes = IMAGE_SUFFIXES | {".json", parquet.SUFFIX}
    imports = image_store.WORKER_IMPORTS
    split_names: ClassVar = {"train": "train", "val": "val", "test": "test"}
    annotation_fields = _Datum
    file_names = ("{split}_v1.0_withQT.json", "{split}_v1.0.json")
    other_layouts = f"Parquet files (*{parquet.SUFFIX}) with the columns image, query and answers"
    options: DocVQAOptions

    def read_annotations(self, path: str) -> Iterator[tuple[str, Any] | Reject]:
        """Yield the fields of each entry of `data` with its address."""
        for index, datum in enumerate(_load_annotations(self.root / path)):
            yield validate_annotation(
                f"{display_path(path)}:data[{index}]", partial(self.annotation_fields.model_validate, datum)
            )

    def annotation(self, official: str, address: str, fields: _Datum) -> Question | Reject:
        """Return the question of one entry; only the test split may lack answers."""
        return _require_answers(official, _question_from_json(address, fields))

    def count(self) -> int:
        """Return the number of questions, without reading any page."""
        if parquet_files := self._parquet_files():
            return sum(g.rows for t in parquet_files for g in parquet.row_groups(self.root, t, docvqa_parquet.LAYOUTS))
        return super().count()

    def items(self) -> Iterator[Item | Reject | Exclude]:
        """Yield items split by split: first the rejects, then the pages in order of first use."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Item | Reject | Exclude]:
        """Yield `items` and report progress while Parquet files are read."""
        parquet_files: dict[str, list[str]] = {}
        for table in self._parquet_files():
            parquet_files.setdefault(parquet.split_name(table), []).append(table)
        if not parquet_files:
            yield from super().items()
            return
        read, total = itertools.count(1), self.count()

        def count_read() -> None:
            progress(next(read), total)

        yield from [entry for split, files in parquet_files.items() for entry in self._pages(split, files, count_read)]

    def _parquet_files(self) -> list[str]:
        parquet_files = parquet.list_files(self.root)
        if parquet_files and self.root.is_dir():
            official = {name.format(split=split) for split in self.split_names for name in self.file_names}
            if both := next((path for path in list_files(self.root) if Path(path).name in official), None):
                raise SourceError(
                    f"{self.root} contains both {display_path(both)} and {display_path(parquet_files[0])}, which may "
                    "hold the same questions. Point --source at one of them."
                )
        return parquet_files

    def _pages(
        self, split: str, files: list[str], count_read: Callable[[], None]
    ) -> Iterator[Pages | Reject | Exclude]:
        """Yield the pages of a split. This reads all rows, since questions about a page may be far apart."""
        page_of: dict[str, Page] = {}

        def read_all() -> Iterator[Question | Reject]:
            for position, read in enumerate(docvqa_parquet.read_questions(self.root, self._images_root, files)):
                count_read()
                if isinstance(read, Reject):
                    yield read
                    continue
                address, page, fields = read
                page_of[str(position)] = page
                yield _require_answers(split, _question_from_row(position, address, page, fields))

        by_group: dict[RowGroup, list[tuple[int, tuple[Question, ...]]]] = {}
        for entry in self.group_by_images(read_all(), lambda question: page_of[question.key].digest):
            if isinstance(entry, Reject | Exclude):
                yield entry
            else:
                first = page_of[entry[1][0].key]
                by_group.setdefault(first.group, []).append((first.number, entry[1]))
        for group, pages in by_group.items():
            yield Pages(group.address, group, split, tuple(pages))

    def convert(self, item: Pictured[Question] | Pages) -> Iterator[Record | Reject]:
        """Convert the questions of a page, or of the pages of a row group one by one."""
        return self._convert_pages(item) if isinstance(item, Pages) else super().convert(item)

    def _convert_pages(self, item: Pages) -> Iterator[Record | Reject]:
        questions_of = dict(item.pages)
        for number, row in parquet.read_rows(self.root, item.group, (item.group.images,)):
            if not (questions := questions_of.get(number)):
                continue
            try:
                if isinstance(row, ItemError):
                    raise row
                page = docvqa_parquet.page_image(self._images_root, item.group, row)
                picture = image_store.store_image(page, f"{item.split}/{questions[0].key}", self.options)
                yield from self.records(item.split, questions, [picture])
            except ItemError as error:
                yield from (Reject(q.address, error.rule, error.reason) for q in questions)

    def batches(self, annotations: tuple[Question, ...]) -> Iterator[tuple[Question, ...]]:
        """Yield one question, or all of the page if each has an answer: only a row's last turn may lack it."""
        if self.options.questions_per_row == "all" and all(question.answers for question in annotations):
            return iter((annotations,))
        return super().batches(annotations)

    def rows(self, split: str, annotations: tuple[Question, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """Return one row, or with `--answer all_rows` one row per different answer."""
        first = annotations[0]
        if self.options.questions_per_row == "all" and first.answers:
            turns = tuple(self._turn(q, () if k else images, self._answer(q)) for k, q in enumerate(annotations))
            questions: list[JsonValue] = [_question_metadata(question) for question in annotations]
            row_id = f"{split}-{image_stem(first.images[0])}"
            return (self._row(row_id, first, turns, {"questions": questions, **_page_metadata(first)}),)
        metadata = {**_question_metadata(first), **_page_metadata(first)}
        row_id = f"{split}-{first.key}"
        if self.options.answer == "all_rows" and first.answers:
            different = dict.fromkeys(first.answers)
            return tuple(
                self._row(f"{row_id}-a{k}", first, (self._turn(first, images, answer),), metadata)
                for k, answer in enumerate(different)
            )
        return (self._row(row_id, first, (self._turn(first, images, self._answer(first)),), metadata),)

    def _answer(self, question: Question) -> str | None:
        if not question.answers:
            return None
        if self.options.answer == "first":
            return question.answers[0]
        return Counter(question.answers).most_common(1)[0][0]  # Counter keeps the first of equal counts

    def _turn(self, question: Question, images: tuple[str, ...], answer: str | None) -> Turn:
        user = fill_template(self.options.prompt_template, question=question.question)
        if answer is None:
            return Turn(images=images, user=user)
        return Turn(images=images, user=user, assistant=answer, answers=question.answers)

    def _row(self, row_id: str, question: Question, turns: tuple[Turn, ...], metadata: dict[str, JsonValue]) -> Row:
        return Row(id=row_id, source=self.name, conversations=turns, group=question.group, metadata=metadata)


def _load_annotations(path: Path) -> list[Any]:
    """Return the unvalidated annotations of a file, so that a bad one does not affect the others."""
    try:
        # Unlike pydantic's parser, json keeps invalid characters, so that only their entry fails.
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{display_path(str(path))} is not JSON: {error}. Download it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise SourceError(
            f"{display_path(str(path))} is not an annotation file of DocVQA: looked for one object whose `data` is a "
            "list of questions. Download it again."
        )
    data: list[Any] = content["data"]
    return data


def _question_from_json(address: str, datum: _Datum) -> Question:
    return Question(
        address=address,
        key=str(datum.questionId),
        images=(datum.image,),
        question_id=datum.questionId,
        question=datum.question,
        answers=tuple(datum.answers or ()),
        group=f"doc-{datum.docId}",
        ucsf_document_id=datum.ucsf_document_id,
        page=datum.ucsf_document_page_no,
        types=None if datum.question_types is None else tuple(datum.question_types),
    )


def _question_from_row(position: int, address: str, page: Page, row: QuestionRow) -> Question:
    """Return the question of a Parquet row; the page serves as its document, which the file does not name."""
    return Question(
        address=address,
        key=str(position),
        images=(str(position),),
        question_id=row.id or position,
        question=row.query.en,
        answers=tuple(row.answers or ()),
        group=image_store.image_group(page.digest),
        ucsf_document_id=None,
        page=None,
        types=None,
    )


def _require_answers(split: str, question: Question) -> Question | Reject:
    if split != UNLABELLED_SPLIT and not question.answers:
        return Reject(question.address, BAD_ANNOTATION, "answers: there are none, though the split is a labelled one")
    return question


def _question_metadata(question: Question) -> dict[str, JsonValue]:
    about: dict[str, JsonValue] = {"questionId": question.question_id}
    if question.types is not None:
        about["question_types"] = list(question.types)
    return about


def _page_metadata(question: Question) -> dict[str, JsonValue]:
    about = {"page": question.page, "ucsf_document_id": question.ucsf_document_id}
    return {key: value for key, value in about.items() if value is not None}

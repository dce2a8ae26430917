"""DocVQA, task 1: questions about scanned pages, with all accepted answers.

Layouts: `{train,val,test}_v1.0_withQT.json`, or the older names without `_withQT`, at any depth: one object each whose
`data` is the list of questions; and the pages, in `documents/` or in any other folders. Or Parquet files as on the hub,
with the columns image, query (a struct of languages, of which English is read), answers and id.
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

from convkit.converters import docvqa_parquet, parquet, pictures
from convkit.converters.annotated import (
    BAD_ANNOTATION,
    AnnotatedOptions,
    AnnotatedPictures,
    Annotation,
    Fields,
    Pictured,
    checked,
    fill,
    unreadable,
)
from convkit.converters.base import Exclude, Item, Record, Reject
from convkit.converters.docvqa_parquet import Fact, Page
from convkit.converters.parquet import RowGroup
from convkit.converters.picture_index import files_below, stem_of
from convkit.converters.pictures import IMAGE_SUFFIXES
from convkit.errors import ItemError, SourceError
from convkit.schema import Row, Turn
from convkit.utils.files import display_path
from convkit.utils.progress import Progress, ignore_progress

UNLABELLED = "test"
"""The split whose answers are kept back."""


class DocVQAOptions(AnnotatedOptions):
    """Options of `docvqa`."""

    prompt_template: str = Field(
        "{question}\nAnswer briefly.",
        pattern=r"\{question\}",
        description="The user's text; {question} stands for the question.",
    )
    answer: Literal["first", "most_frequent", "all_rows"] = Field(
        "most_frequent",
        description="Which accepted answer is trained on: the first, the most frequent (of equals the first), or one "
        "row for each different answer.",
    )
    questions_per_row: Literal["one", "all"] = Field(
        "one",
        description="One row a question, or all questions of a page as turns of one row. Where answers are missing, "
        "as in test, it is one row a question in any case.",
    )
    limit: int | None = Field(None, ge=1, description="At most this many questions of each split.")

    @model_validator(mode="after")
    def _one_answer_a_turn(self) -> Self:
        if self.answer == "all_rows" and self.questions_per_row == "all":
            raise SourceError(
                "--answer all_rows makes a row of each answer, which --questions_per_row all leaves no room for. "
                "Choose --questions_per_row one, or another --answer."
            )
        return self


_Text = Annotated[str, Field(pattern=r"\S")]


class _Datum(Fields):
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
    """A question about one page; its key is its number."""

    question_id: int | str
    question: str
    answers: tuple[str, ...]
    """Empty where there is no label."""
    group: str
    ucsf_document_id: str | None
    page: str | None
    types: tuple[str, ...] | None


@dataclass(frozen=True)
class Pages(Item):
    """A row group, and all that is asked about the pages that no row before it shows."""

    group: RowGroup
    split: str
    pages: tuple[tuple[int, tuple[Question, ...]], ...]
    """By the number of the row that shows the page."""

    @property
    def units(self) -> int:
        """Its questions."""
        return sum(len(questions) for _, questions in self.pages)


class DocVQA(AnnotatedPictures[Question]):
    """A question about a page becomes one row, or a page with all its questions; the rows of a document are a group."""

    name = "docvqa"
    unit = "question"
    version = 3
    Options = DocVQAOptions
    default_source = "hub:nielsr/docvqa_1200_examples/data/*.parquet"
    suffixes = IMAGE_SUFFIXES | {".json", parquet.SUFFIX}
    imports = pictures.IMPORTS
    split_names: ClassVar = {"train": "train", "val": "val", "test": "test"}
    file_names = ("{split}_v1.0_withQT.json", "{split}_v1.0.json")
    other_layouts = f"Parquet files (*{parquet.SUFFIX}) with the columns image, query and answers"
    options: DocVQAOptions

    def annotations(self, official: str, path: str) -> Iterator[Question | Reject]:
        """An entry of `data` each."""
        for index, datum in enumerate(_data(self.root / path)):
            read = checked(f"{display_path(path)}:data[{index}]", partial(_Datum.model_validate, datum))
            yield read if isinstance(read, Reject) else _labelled(official, _question(*read))

    def count(self) -> int:
        """The number of questions; no page is read."""
        if tables := self._tables():
            return sum(g.rows for t in tables for g in parquet.row_groups(self.root, t, docvqa_parquet.LAYOUTS))
        return super().count()

    def items(self) -> Iterator[Item | Reject | Exclude]:
        """Split by split: what is refused, then the pages in the order in which they are first shown."""
        return self.iter_with_progress(ignore_progress)

    def iter_with_progress(self, progress: Progress) -> Iterator[Item | Reject | Exclude]:
        """The same."""
        tables: dict[str, list[str]] = {}
        for table in self._tables():
            tables.setdefault(parquet.split_of(table), []).append(table)
        if not tables:
            yield from super().items()
            return
        read, total = itertools.count(1), self.count()

        def reading() -> None:
            progress(next(read), total)

        yield from [entry for split, files in tables.items() for entry in self._pages(split, files, reading)]

    def _tables(self) -> list[str]:
        tables = parquet.files(self.root)
        if tables and self.root.is_dir():
            official = {name.format(split=split) for split in self.split_names for name in self.file_names}
            if both := next((path for path in files_below(self.root) if Path(path).name in official), None):
                raise SourceError(
                    f"{self.root} holds {display_path(both)} as well as {display_path(tables[0])}, which may be the "
                    "same questions twice. Point --source at one of them."
                )
        return tables

    def _pages(self, split: str, files: list[str], reading: Callable[[], None]) -> Iterator[Pages | Reject | Exclude]:
        """All rows are read once more for it: questions about a page may stand far apart."""
        page_of: dict[str, Page] = {}

        def asked() -> Iterator[Question | Reject]:
            for position, fact in enumerate(docvqa_parquet.facts(self.root, self._pictures_root, files)):
                reading()
                if isinstance(fact, Reject):
                    yield fact
                    continue
                address, page, said = fact
                page_of[str(position)] = page
                yield _labelled(split, _asked(position, address, page, said))

        by_group: dict[RowGroup, list[tuple[int, tuple[Question, ...]]]] = {}
        for entry in self.gather(asked(), lambda question: page_of[question.key].digest):
            if isinstance(entry, Reject | Exclude):
                yield entry
            else:
                first = page_of[entry[1][0].key]
                by_group.setdefault(first.group, []).append((first.number, entry[1]))
        for group, pages in by_group.items():
            yield Pages(group.address, group, split, tuple(pages))

    def convert(self, item: Pictured[Question] | Pages) -> Iterator[Record | Reject]:
        """A page with what is asked about it, or such pages one by one."""
        return self._convert_pages(item) if isinstance(item, Pages) else super().convert(item)

    def _convert_pages(self, item: Pages) -> Iterator[Record | Reject]:
        asked = dict(item.pages)
        for number, row in parquet.rows(self.root, item.group, (item.group.images,)):
            if not (questions := asked.get(number)):
                continue
            try:
                if isinstance(row, ItemError):
                    raise row
                page = docvqa_parquet.image(self._pictures_root, item.group, row)
                picture = pictures.bring(page, f"{item.split}/{questions[0].key}", self.options)
                yield from self.records(item.split, questions, [picture])
            except ItemError as error:
                yield from (Reject(q.address, error.rule, error.reason) for q in questions)

    def batches(self, annotations: tuple[Question, ...]) -> Iterator[tuple[Question, ...]]:
        """One question, or all of the page where each has an answer: only a row's last turn may lack it."""
        if self.options.questions_per_row == "all" and all(question.answers for question in annotations):
            return iter((annotations,))
        return super().batches(annotations)

    def rows(self, split: str, annotations: tuple[Question, ...], images: tuple[str, ...]) -> tuple[Row, ...]:
        """One row, or with `--answer all_rows` one for each different answer."""
        first = annotations[0]
        if self.options.questions_per_row == "all" and first.answers:
            turns = tuple(self._turn(q, () if k else images, self._answer(q)) for k, q in enumerate(annotations))
            questions: list[JsonValue] = [_about_question(question) for question in annotations]
            row_id = f"{split}-{stem_of(first.images[0])}"
            return (self._row(row_id, first, turns, {"questions": questions, **_about_page(first)}),)
        metadata = {**_about_question(first), **_about_page(first)}
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
        return Counter(question.answers).most_common(1)[0][0]  # of equals the first, by Counter's contract

    def _turn(self, question: Question, images: tuple[str, ...], answer: str | None) -> Turn:
        user = fill(self.options.prompt_template, question=question.question)
        if answer is None:
            return Turn(images=images, user=user)
        return Turn(images=images, user=user, assistant=answer, answers=question.answers)

    def _row(self, row_id: str, question: Question, turns: tuple[Turn, ...], metadata: dict[str, JsonValue]) -> Row:
        return Row(id=row_id, source=self.name, conversations=turns, group=question.group, metadata=metadata)


def _data(path: Path) -> list[Any]:
    """The annotations of a file, unchecked: one that is bad must not cost the others."""
    try:
        content = json.loads(path.read_bytes())  # unlike pydantic's, it passes bad characters on to their datum
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{display_path(str(path))} is not JSON: {error}. Download it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise SourceError(
            f"{display_path(str(path))} is not an annotation file of DocVQA: looked for one object whose `data` is a "
            "list of questions. Download it again."
        )
    data: list[Any] = content["data"]
    return data


def _question(address: str, datum: _Datum) -> Question:
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


def _asked(position: int, address: str, page: Page, fact: Fact) -> Question:
    """A row of a Parquet file, which tells nothing of the document: the page stands for it."""
    return Question(
        address=address,
        key=str(position),
        images=(str(position),),
        question_id=fact.id or position,
        question=fact.query.en,
        answers=tuple(fact.answers or ()),
        group=pictures.group_of(page.digest),
        ucsf_document_id=None,
        page=None,
        types=None,
    )


def _labelled(split: str, question: Question) -> Question | Reject:
    if split != UNLABELLED and not question.answers:
        return Reject(question.address, BAD_ANNOTATION, "answers: there are none, though the split is a labelled one")
    return question


def _about_question(question: Question) -> dict[str, JsonValue]:
    about: dict[str, JsonValue] = {"questionId": question.question_id}
    if question.types is not None:
        about["question_types"] = list(question.types)
    return about


def _about_page(question: Question) -> dict[str, JsonValue]:
    about = {"page": question.page, "ucsf_document_id": question.ucsf_document_id}
    return {key: value for key, value in about.items() if value is not None}

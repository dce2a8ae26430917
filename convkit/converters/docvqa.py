"""DocVQA, task 1: questions about scanned pages, with all accepted answers.

Layout: `{train,val,test}_v1.0_withQT.json`, or the older names without `_withQT`, at any depth: one object each whose
`data` is the list of questions; and the pages, in `documents/` or in any other folders.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from convkit.converters.base import Reject
from convkit.converters.picture_index import (
    BAD_ANNOTATION,
    IMAGE_SUFFIXES,
    AnnotatedOptions,
    AnnotatedPictures,
    Annotation,
    Fields,
    annotation_files,
    checked,
    fill,
    stem_of,
    unreadable,
)
from convkit.errors import SourceError
from convkit.files import printable
from convkit.schema import Conversation, Turn

SPLITS = ("train", "val", "test")
UNLABELLED = "test"
"""The split whose answers are kept back."""
FORMS = ("_v1.0_withQT.json", "_v1.0.json")
"""How the annotation files' names go on behind the split; the first that is there is read."""


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

    question_id: int
    question: str
    answers: tuple[str, ...]
    """Empty where there is no label."""
    document: int
    ucsf_document_id: str | None
    page: str | None
    types: tuple[str, ...] | None


class DocVQA(AnnotatedPictures[Question]):
    """A question about a page becomes one row, or a page with all its questions; the rows of a document are a group."""

    name = "docvqa"
    unit = "question"
    version = 1
    Options = DocVQAOptions
    suffixes = IMAGE_SUFFIXES | {".json"}
    options: DocVQAOptions

    def splits(self) -> Iterator[tuple[str, Iterator[Question | Reject]]]:
        """Those of train, val and test that are there."""
        layouts = "train_v1.0_withQT.json, val_v1.0_withQT.json, test_v1.0.json, with or without _withQT, at any depth"
        files = annotation_files(self.root, (split + form for split in SPLITS for form in FORMS), layouts)
        for split in SPLITS:
            if path := next((files[split + form] for form in FORMS if split + form in files), None):
                yield split, self._questions(split, path)

    def _questions(self, split: str, path: str) -> Iterator[Question | Reject]:
        for index, datum in enumerate(_data(self.root / path)):
            read = checked(f"{printable(path)}:data[{index}]", partial(_Datum.model_validate, datum))
            yield read if isinstance(read, Reject) else _question(split, *read)

    def batches(self, annotations: tuple[Question, ...]) -> Iterator[tuple[Question, ...]]:
        """One question, or all of the page where each has an answer: only a row's last turn may lack it."""
        if self.options.questions_per_row == "all" and all(question.answers for question in annotations):
            return iter((annotations,))
        return super().batches(annotations)

    def rows(self, split: str, annotations: tuple[Question, ...], images: tuple[str, ...]) -> tuple[Conversation, ...]:
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

    def _row(
        self, row_id: str, question: Question, turns: tuple[Turn, ...], metadata: dict[str, JsonValue]
    ) -> Conversation:
        group = f"doc-{question.document}"
        return Conversation(id=row_id, source=self.name, conversations=turns, group=group, metadata=metadata)


def _data(path: Path) -> list[Any]:
    """The annotations of a file, unchecked: one that is bad must not cost the others."""
    try:
        content = json.loads(path.read_bytes())  # unlike pydantic's, it passes bad characters on to their datum
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{printable(str(path))} is not JSON: {error}. Download it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise SourceError(
            f"{printable(str(path))} is not an annotation file of DocVQA: looked for one object whose `data` is a list "
            "of questions. Download it again."
        )
    data: list[Any] = content["data"]
    return data


def _question(split: str, address: str, datum: _Datum) -> Question | Reject:
    if split != UNLABELLED and not datum.answers:
        return Reject(address, BAD_ANNOTATION, "answers: there are none, though the split is a labelled one")
    return Question(
        address=address,
        key=str(datum.questionId),
        images=(datum.image,),
        question_id=datum.questionId,
        question=datum.question,
        answers=tuple(datum.answers or ()),
        document=datum.docId,
        ucsf_document_id=datum.ucsf_document_id,
        page=datum.ucsf_document_page_no,
        types=None if datum.question_types is None else tuple(datum.question_types),
    )


def _about_question(question: Question) -> dict[str, JsonValue]:
    about: dict[str, JsonValue] = {"questionId": question.question_id}
    if question.types is not None:
        about["question_types"] = list(question.types)
    return about


def _about_page(question: Question) -> dict[str, JsonValue]:
    about = {"page": question.page, "ucsf_document_id": question.ucsf_document_id}
    return {key: value for key, value in about.items() if value is not None}

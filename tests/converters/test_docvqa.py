"""DocVQA annotations in the official format are converted with real pages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from convkit.convert.run import convert
from convkit.converters.docvqa import DocVQA
from convkit.errors import SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree


def run(source: Path, out: Path, workers: int = 0, **options: Any) -> Manifest:
    return convert(DocVQA, str(source), DocVQA.Options(**options), out, workers=workers)


def document(number: int) -> int:
    """Return the document of a question; questions of train and test each have their own document."""
    return 900 + (number if number > 6 else number % 2)


def datum(number: int, page: str, answers: list[str] | None, **other: Any) -> dict[str, Any]:
    found = {
        "questionId": number,
        "question": f"Question {number}?",
        "question_types": ["layout"],
        "image": f"documents/{page}.png",
        "docId": document(number),
        "ucsf_document_id": "xnbl0037",
        "ucsf_document_page_no": "1",
        "answers": answers,
        "data_split": "val",
        **other,
    }
    return {key: value for key, value in found.items() if value is not None}


def write(path: Path, *data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val", "data": data}
    path.write_text(json.dumps(content))


@pytest.fixture
def source(shared_data: Path, tmp_path: Path) -> Path:
    """Write three splits; page 10 has two questions, with one about another page between them."""
    root = tmp_path / "source"
    shutil.copytree(shared_data / "data/docvqa/pages", root / "documents")
    write(root / "qas/train_v1.0_withQT.json", datum(9, "document_0", ["a"]))
    write(
        root / "qas/val_v1.0_withQT.json",
        datum(5, "document_10", ["ITC", "itc", "itc"]),
        datum(4, "document_22", ["1", "2"]),
        datum(3, "document_10", ["x"]),
    )
    write(
        root / "qas/test_v1.0.json",
        datum(7, "document_7", None, question_types=None),
        datum(8, "document_7", None, question_types=None),
    )
    return root


def turn(number: int, *images: str, **answer: Any) -> dict[str, Any]:
    return {"images": list(images), "user": f"Question {number}?\nAnswer briefly.", **answer}


def row(split: str, number: int, page: str, **answer: Any) -> dict[str, Any]:
    metadata = {"questionId": number, "page": "1", "ucsf_document_id": "xnbl0037"}
    if split != "test":
        metadata["question_types"] = ["layout"]
    return {
        "id": f"{split}-{number}",
        "source": "docvqa",
        "conversations": [turn(number, f"{split}/{page}.png", **answer)],
        "group": f"doc-{document(number)}",
        "metadata": metadata,
    }


TEST_ROWS = [row("test", 7, "document_7"), row("test", 8, "document_7")]


def test_questions_become_rows_with_answers_and_metadata(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out")
    assert rows(tmp_path / "out") == [
        row("train", 9, "document_0", assistant="a", answers=["a"]),
        row("val", 5, "document_10", assistant="itc", answers=["ITC", "itc", "itc"]),
        row("val", 3, "document_10", assistant="x", answers=["x"]),
        row("val", 4, "document_22", assistant="1", answers=["1", "2"]),
        *TEST_ROWS,
    ]
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.quarantined, done.media_files) == ("question", 6, 6, 0, 4)
    stored = tmp_path / "out/images/val/document_10.png"
    assert stored.read_bytes() == (source / "documents/document_10.png").read_bytes()
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_older_file_names_and_flat_image_folders_are_found(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    other = tmp_path / "other/source"
    shutil.copytree(source / "documents", other / "spdocvqa_images")
    for split in ("train", "val"):
        shutil.copy(source / f"qas/{split}_v1.0_withQT.json", other / f"{split}_v1.0.json")
    shutil.copy(source / "qas/test_v1.0.json", other / "test_v1.0_withQT.json")
    run(other, tmp_path / "out2")
    assert rows(tmp_path / "out2") == rows(tmp_path / "out")


def test_the_file_with_question_types_is_preferred(source: Path, tmp_path: Path) -> None:
    write(source / "qas/val_v1.0.json", datum(1, "document_0", ["old"]))
    run(source, tmp_path / "out")
    assert [r["id"] for r in rows(tmp_path / "out", "val")] == ["val-5", "val-3", "val-4"]


def test_the_first_answer_is_used_on_request(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", answer="first")
    assert [r["conversations"][0]["assistant"] for r in rows(tmp_path / "out", "val")] == ["ITC", "x", "1"]


def test_all_rows_makes_one_row_per_different_answer(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", answer="all_rows")
    found = [(r["id"], r["conversations"][0]["assistant"]) for r in rows(tmp_path / "out", "val")]
    assert found == [
        ("val-5-a0", "ITC"),
        ("val-5-a1", "itc"),
        ("val-3-a0", "x"),
        ("val-4-a0", "1"),
        ("val-4-a1", "2"),
    ]
    assert rows(tmp_path / "out", "val")[1]["conversations"][0]["answers"] == ["ITC", "itc", "itc"]
    assert rows(tmp_path / "out", "test") == TEST_ROWS
    assert (manifest.accounting.read, manifest.accounting.written, manifest.splits["val"].rows) == (6, 6, 5)
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_all_questions_of_a_page_become_turns_of_one_row(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", questions_per_row="all")
    assert rows(tmp_path / "out", "val") == [
        {
            "id": "val-document_10",
            "source": "docvqa",
            "conversations": [
                turn(5, "val/document_10.png", assistant="itc", answers=["ITC", "itc", "itc"]),
                turn(3, assistant="x", answers=["x"]),
            ],
            "group": "doc-901",
            "metadata": {
                "page": "1",
                "ucsf_document_id": "xnbl0037",
                "questions": [
                    {"questionId": 5, "question_types": ["layout"]},
                    {"questionId": 3, "question_types": ["layout"]},
                ],
            },
        },
        {
            "id": "val-document_22",
            "source": "docvqa",
            "conversations": [turn(4, "val/document_22.png", assistant="1", answers=["1", "2"])],
            "group": "doc-900",
            "metadata": {
                "page": "1",
                "ucsf_document_id": "xnbl0037",
                "questions": [{"questionId": 4, "question_types": ["layout"]}],
            },
        },
    ]
    assert rows(tmp_path / "out", "test") == TEST_ROWS
    assert (manifest.accounting.read, manifest.accounting.written) == (6, 6)
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_conflicting_options_are_refused() -> None:
    with pytest.raises(SourceError, match=r"--answer all_rows .* --questions_per_row all"):
        DocVQA.Options.model_validate({"answer": "all_rows", "questions_per_row": "all"})


def test_prompt_template_and_limit_are_applied(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", prompt_template="Q: {question} {answer}", limit=2)
    assert [r["conversations"][0]["user"] for r in rows(tmp_path / "out", "val")] == [
        "Q: Question 5? {answer}",
        "Q: Question 4? {answer}",
    ]
    assert manifest.accounting.excluded == {"beyond --limit": 1}


def test_images_are_named_by_content_on_request(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", image_names="content", link=True)
    first, second, _ = (r["conversations"][0]["images"] for r in rows(tmp_path / "out", "val"))
    assert first == second
    page = source / "documents/document_10.png"
    assert (tmp_path / "out/images" / first[0]).stat().st_ino == page.stat().st_ino
    assert validate([tmp_path / "out"], workers=0).report.findings == []


def test_a_bad_entry_is_quarantined_without_affecting_others(source: Path, tmp_path: Path) -> None:
    data = [
        datum(1, "document_0", ["good"]),
        "no object",
        datum(2, "document_0", None),
        datum(3, "document_0", []),
        datum(4, "document_0", ["x", 5]),  # type: ignore[list-item]
        datum(5, "document_0", ["x"], question=None),
        datum(6, "document_0", ["x"], question="half a pair: \ud83d"),
        datum(7, "document_0", ["x"], questionId="7"),
        datum(8, "gone", ["x"]),
        datum(1, "document_0", ["again"]),
        datum(9, "document_0", ["x"], question="<image> and <image>?"),
        datum(10, "document_0", ["x"], docId=None),
        datum(11, "document_0", ["last"]),
    ]
    write(source / "qas/val_v1.0_withQT.json", *data)
    run(source, tmp_path / "out")
    assert [r["id"] for r in rows(tmp_path / "out", "val")] == ["val-1", "val-11"]
    refused = quarantined(tmp_path / "out")
    name = "qas/val_v1.0_withQT.json:data"
    rules = {2: "missing-image", 3: "duplicate-id", 4: "invalid-row"}
    assert {address: rule for address, (rule, _) in refused.items()} == {
        **{f"{name}[{index}]": "bad-annotation" for index in (1, 2, 3, 4, 5, 6, 7, 11)},
        **{f"{name}[{index + 6}]": rule for index, rule in rules.items()},
    }
    assert refused[f"{name}[2]"][1] == "answers: there are none, though the split is a labelled one"
    assert refused[f"{name}[4]"][1] == "answers/1: Input should be a valid string"
    assert refused[f"{name}[5]"][1] == "question: Field required"
    assert refused[f"{name}[8]"][1] == "not in the source: documents/gone.png"
    found = validate([tmp_path / "out"], workers=0).report.findings
    assert {finding.code for finding in found} <= {"CK307", "CK310"}  # both generated splits ask about the same page


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[1]", "is not an annotation file of DocVQA"), ('{"data": {}}', "whose `data` is a list")],
)
def test_files_that_are_not_annotations_are_refused(source: Path, tmp_path: Path, content: str, message: str) -> None:
    (source / "qas/val_v1.0_withQT.json").write_text(content)
    with pytest.raises(SourceError, match=message):
        run(source, tmp_path / "out")


def test_a_source_without_annotations_or_images_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Looked for train_v1.0_withQT.json, train_v1.0.json, .*, or Parquet files"):
        run(source / "documents", tmp_path / "out")


@pytest.mark.parametrize("per_row", ["one", "all"])
def test_output_is_identical_for_any_workers_and_after_resuming(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_row: str
) -> None:
    run(source, tmp_path / "0", questions_per_row=per_row)
    run(source, tmp_path / "2", workers=2, questions_per_row=per_row)
    assert tree(tmp_path / "2") == tree(tmp_path / "0")
    original = DocVQA.convert

    def interrupted(self: DocVQA, item: Any) -> Any:
        if item.split == "test":
            raise KeyboardInterrupt
        return original(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(DocVQA, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", questions_per_row=per_row)
    run(source, tmp_path / "out", questions_per_row=per_row)
    assert tree(tmp_path / "out") == tree(tmp_path / "0")

"""DocVQA Parquet files of the Hub, one row per question, are converted to rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from convkit.convert.run import convert
from convkit.converters.docvqa import DocVQA
from convkit.errors import SourceError
from convkit.schema import Manifest
from convkit.validate.run import validate
from tests.convert.helpers import quarantined, rows, tree
from tests.convert.picture_trees import datum, docvqa_tree, png, question, write

datasets: Any = pytest.importorskip("datasets")

TRAIN = "train-00000-of-00001-f795527aa19f0f90.parquet"
ANSWERS = ["May", "may 1", "may 1"]


def run(source: Path, out: Path, workers: int = 0, **options: Any) -> Manifest:
    return convert(DocVQA, str(source), DocVQA.Options(**options), out, workers=workers)


def save(path: Path, made: list[dict[str, Any]], batch: int = 2) -> None:
    languages = {name: datasets.Value("string") for name in ("de", "en")}
    texts = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "query": languages,
            "answers": texts,
            "words": texts,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(made, features=features).to_parquet(path, batch_size=batch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write three row groups of train in which rows 0, 2 and 5 show the same page; test lacks some answers."""
    shades = [1, 2, 1, 3, 2, 1]
    save(
        tmp_path / "source/data" / TRAIN,
        [question(k, png(s), ANSWERS if k else ["x", "y"]) for k, s in enumerate(shades)],
    )
    save(tmp_path / "source/data/test-00000-of-00001.parquet", [question(0, png(9), None), question(1, png(8), ["z"])])
    return tmp_path / "source"


def turn(number: int, *images: str, **answer: Any) -> dict[str, Any]:
    return {"images": list(images), "user": f"Question {number}?\nAnswer briefly.", **answer}


def test_questions_of_a_parquet_file_become_rows(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out")
    train = rows(tmp_path / "out", "train")
    # The questions of a page follow the row that shows it first.
    assert [row["id"] for row in train] == ["train-0", "train-2", "train-5", "train-1", "train-4", "train-3"]
    assert train[1] == {
        "id": "train-2",
        "source": "docvqa",
        "conversations": [turn(2, "train/0.png", assistant="may 1", answers=ANSWERS)],
        "group": train[0]["group"],
        "metadata": {"questionId": "q_2"},
    }
    assert train[0]["conversations"][0]["assistant"] == "x"
    assert len({row["group"] for row in train}) == 3
    assert (tmp_path / "out/images/train/0.png").read_bytes() == png(1)
    unlabelled, labelled = rows(tmp_path / "out", "test")
    assert unlabelled["conversations"] == [turn(0, "test/0.png")]
    assert labelled["conversations"] == [turn(1, "test/1.png", assistant="z", answers=["z"])]
    done = manifest.accounting
    assert (done.unit, done.read, done.written, done.media_files) == ("question", 8, 8, 5)
    findings = validate([tmp_path / "out"], workers=0).report.findings
    assert [(finding.code, finding.line) for finding in findings] == [("CK108", 1)]  # the question without an answer


def test_all_questions_of_a_page_become_turns_of_one_row(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", questions_per_row="all", prompt_template="{question}")
    first, second, third = rows(tmp_path / "out", "train")
    assert [(t["user"], t["images"]) for t in first["conversations"]] == [
        ("Question 0?", ["train/0.png"]),
        ("Question 2?", []),
        ("Question 5?", []),
    ]
    assert first["metadata"] == {"questions": [{"questionId": f"q_{k}"} for k in (0, 2, 5)]}
    assert [len(row["conversations"]) for row in (second, third)] == [2, 1]
    assert (manifest.accounting.read, manifest.accounting.written) == (8, 8)


@pytest.mark.parametrize(
    ("answer", "found"),
    [("first", ["x", "May"]), ("most_frequent", ["x", "may 1"]), ("all_rows", ["x", "y", "May", "may 1"])],
)
def test_the_answer_option_selects_the_answer(tmp_path: Path, answer: str, found: list[str]) -> None:
    save(tmp_path / TRAIN, [question(0, png(1), ["x", "y"]), question(1, png(2), ANSWERS)])
    run(tmp_path / TRAIN, tmp_path / "out", answer=answer)
    assert [row["conversations"][0]["assistant"] for row in rows(tmp_path / "out")] == found


def test_the_limit_counts_questions_per_split(source: Path, tmp_path: Path) -> None:
    manifest = run(source, tmp_path / "out", limit=3)
    assert [row["id"] for row in rows(tmp_path / "out", "train")] == ["train-0", "train-2", "train-1"]
    assert manifest.accounting.excluded == {"beyond --limit": 3}
    assert (manifest.accounting.read, manifest.accounting.written) == (8, 5)


def test_bad_questions_are_quarantined_without_affecting_others(tmp_path: Path) -> None:
    made = [question(k, png(k), ["a"]) for k in range(8)]
    made[1]["answers"] = []
    made[2]["query"]["en"] = None
    made[3]["image"] = None
    made[4]["image"] = {"bytes": b"no picture", "path": None}
    made[5]["image"] = {"bytes": None, "path": "../secret.png"}
    made[6]["query"]["en"] = "Is it <image>, <image>?"
    save(tmp_path / "source" / TRAIN, made, batch=3)
    manifest = run(tmp_path / "source", tmp_path / "out")
    assert [row["id"] for row in rows(tmp_path / "out")] == ["train-0", "train-7"]
    assert {address: rule for address, (rule, _) in quarantined(tmp_path / "out").items()} == {
        f"{TRAIN}:1": "bad-annotation",
        f"{TRAIN}:2": "bad-annotation",
        f"{TRAIN}:3": "missing-image",
        f"{TRAIN}:4": "undecodable-image",
        f"{TRAIN}:5": "unsafe-path",
        f"{TRAIN}:6": "invalid-row",
    }
    assert quarantined(tmp_path / "out")[f"{TRAIN}:2"][1] == "query/en: Input should be a valid string"
    assert (manifest.accounting.read, manifest.accounting.written) == (8, 2)


def test_all_questions_of_a_damaged_row_group_are_quarantined(source: Path, tmp_path: Path) -> None:
    save(tmp_path / "damaged" / TRAIN, [question(k, png(k), ["a"]) for k in range(9)], batch=3)
    content = bytearray((tmp_path / "damaged" / TRAIN).read_bytes())
    content[4:120] = bytes(116)
    (tmp_path / "damaged" / TRAIN).write_bytes(content)
    done = run(tmp_path / "damaged", tmp_path / "out").accounting
    assert (done.read, done.written, done.quarantined) == (9, 6, 3)
    assert quarantined(tmp_path / "out")[f"{TRAIN}:0"][0] == "damaged-parquet"


def test_images_without_bytes_are_read_by_path(tmp_path: Path) -> None:
    write(tmp_path / "pages/p.png", png(1))
    made = [{**question(k, b"", ["a"]), "image": {"bytes": None, "path": "p.png"}} for k in range(2)]
    save(tmp_path / "source" / TRAIN, made)
    manifest = run(tmp_path / "source", tmp_path / "out", images=tmp_path / "pages", link=True)
    assert (manifest.accounting.written, manifest.accounting.media_files) == (2, 1)
    assert (tmp_path / "out/images/train/0.png").stat().st_ino == (tmp_path / "pages/p.png").stat().st_ino


def test_output_is_identical_with_workers(source: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        run(source, tmp_path / str(workers), workers, questions_per_row="all", image_names="content")
    assert tree(tmp_path / "0") == tree(tmp_path / "2")


def test_a_source_with_both_layouts_is_refused(source: Path, tmp_path: Path) -> None:
    docvqa_tree(source)
    with pytest.raises(SourceError, match=r"contains both test_v1.0.json and data/test-.*, which may hold the same"):
        run(source, tmp_path / "out")


def test_the_error_lists_known_and_found_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"picture": "x"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"Looked for the columns: images, query\. Found: picture\."):
        run(tmp_path / "a.parquet", tmp_path / "out")


def test_a_single_annotation_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "val_v1.0.json", json.dumps({"data": [datum(1, 0, ["a"])]}))
    with pytest.raises(SourceError, match=r"val_v1.0.json is a single file\. Pass the folder"):
        run(tmp_path / "val_v1.0.json", tmp_path / "out")

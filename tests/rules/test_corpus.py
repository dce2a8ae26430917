"""Rules about rows against each other: what the fixtures are too small for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit import layout
from convkit.rules import lookup, splits
from tests.fixtures.corpus_datasets import labelled, photo
from tests.fixtures.make_datasets import lines, png, row, turn
from tests.validate.helpers import codes, report_of


def write(directory: Path, images: dict[str, bytes], **files: list[Any]) -> Path:
    (directory / "images").mkdir()
    for name, content in images.items():
        (directory / "images" / name).write_bytes(content)
    for split, rows in files.items():
        (directory / f"pets_{split}.jsonl").write_bytes(lines(*rows))
    return directory


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ucf101_train.jsonl", "ucf101_val.jsonl"], ["train", "val"]),
        (
            ["memes_dev_seen.jsonl.gz", "memes_dev_unseen.jsonl", "memes_train.jsonl"],
            ["dev_seen", "dev_unseen", "train"],
        ),
        (["a_train-00000-of-00002.jsonl", "a_train-00001-of-00002.jsonl", "a_val.jsonl"], ["train", "train", "val"]),
        (["a_train-00000-of-00002.jsonl", "a_train-00001-of-00002.jsonl"], ["train", "train"]),
        (["a_train_captions.jsonl", "a_train_vqa.jsonl"], ["train_captions", "train_vqa"]),
        (["x_train.jsonl"], ["train"]),
        (["train.jsonl", "a_test.jsonl.zst"], ["train", "a_test"]),
        ([], []),
    ],
)
def test_splits_are_named_by_what_differs(names: list[str], expected: list[str]) -> None:
    assert layout.split_names([Path(name) for name in names]) == expected


shapes = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.integers(0, 255), max_size=9), st.integers(0, 2)), min_size=2, max_size=30
)


@given(shapes)
def test_all_near_shapes_are_found(made: list[tuple[int, set[int], int]]) -> None:
    """The search by bands against a comparison of all pairs."""
    grounds = np.random.default_rng(0).integers(1, 2**63, (4, 4)).astype(np.uint64)
    rows = []
    for ground, flips, _ in made:
        words = grounds[ground].copy()
        for bit in flips:
            words[bit // 64] ^= np.uint64(1 << bit % 64)
        rows.append(words)
    count = len(made)
    numbers = np.arange(count, dtype=np.uint64)
    groups = np.array([split for _, _, split in made], np.uint64)
    images = splits._Images(groups, groups, numbers, numbers, numbers, np.array(rows))
    found = {pair.other for pair in splits._near(images)}
    expected = {
        b if groups[b] > groups[a] else a
        for a in range(count)
        for b in range(a)
        if groups[a] != groups[b] and sum(int(x ^ y).bit_count() for x, y in zip(rows[a], rows[b], strict=True)) <= 7
    }
    assert found == expected


def test_one_picture_within_a_split_is_no_finding(tmp_path: Path) -> None:
    copies = {"a.png": png(), "b.png": png(), "c.png": photo(), "d.png": photo(shift=1), "e.png": png(value=9)}
    asked = [turn("Same?", images=["a.png", "b.png"], assistant="yes"), turn("Why?", images=["c.png"], assistant="So.")]
    train = [
        row("1", ["a.png", "a.png", "b.png"]),
        row("2", ["c.png"]),
        row("3", ["d.png"]),
        row("4", conversations=asked),
    ]
    write(tmp_path, copies, train=train, val=[row("5", ["e.png"])])
    assert codes(report_of(tmp_path)) == []


def test_the_header_alone_tells_what_is_named_twice(tmp_path: Path) -> None:
    copies = {"a.png": png(), "b.png": png(value=1), "c.png": png(value=1)}
    write(tmp_path, copies, train=[row("1", ["a.png", "b.png"])], val=[row("2", ["c.png", "a.png"])])
    (finding,) = report_of(tmp_path, media="header").findings
    assert (finding.code, finding.pointer) == ("CK307", "/conversations/0/images/1")
    assert len(report_of(tmp_path).findings) == 2


def test_both_places_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png()}, train=[row("0"), row("1", ["a.png"])], val=[row("2", ["a.png"])])
    (finding,) = report_of(tmp_path).findings
    assert (finding.file, finding.line, finding.row_id) == (f"{tmp_path}/pets_val.jsonl", 1, "2")
    assert f"{tmp_path}/pets_train.jsonl:2 in the split train" in finding.message


def test_training_files_may_share_what_no_other_split_has(tmp_path: Path) -> None:
    images = {"a.png": png(), "b.png": png(value=1), "photo.png": photo(), "again.png": photo(shift=1)}
    captions = [row("0", ["a.png"], group="g"), row("1", ["b.png"]), row("2", ["photo.png"])]
    questions = [row("3", ["a.png"], group="g"), row("4", ["b.png"], group="h"), row("5", ["again.png"])]
    for number, found in enumerate(questions):
        found["conversations"][0]["user"] = f"Question {number}?"
    write(tmp_path, images, train_captions=captions, train_vqa=questions)
    assert codes(report_of(tmp_path)) == []
    content = lines(row("6", ["b.png"], group="h", conversations=[turn("Hm?", images=["b.png"], assistant="No.")]))
    (tmp_path / "pets_val_vqa.jsonl").write_bytes(content)
    assert [(f.code, f.line) for f in report_of(tmp_path).findings] == [("CK307", 1), ("CK310", 1)]


def test_what_is_not_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lookup", "duplicates", "splits", "labels"):
        monkeypatch.setattr(f"convkit.rules.{module}.MAX_LISTED", 3)
    assert lookup.MAX_LISTED == 3
    pictures = {f"{number}.png": png(value=number) for number in range(5)}
    train = [row(str(number), [name], group=name) for number, name in enumerate(pictures)]
    twins = [{**found, "id": f"twin {found['id']}"} for found in train]
    write(tmp_path, pictures, train=train, val=twins)
    findings = report_of(tmp_path).findings
    for code in ("CK305", "CK307", "CK310"):
        found = [finding for finding in findings if finding.code == code]
        assert len(found) == 4
        assert sum("2 more findings of this rule are not listed" in finding.message for finding in found) == 1


def asked(number: int | str, assistant: str, answers: list[str] | None = None) -> dict[str, Any]:
    more = {"answers": answers} if answers else {}
    return row(str(number), conversations=[turn("How much?", assistant=assistant, **more)])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("1", ["1", "2"]), ("2", ["1", "2"])], []),
        ([("1", ["1", "2"]), ("2", ["2", "1", "3"])], []),
        ([("1", ["1", "2"]), ("2", None)], ["CK306"]),
        ([("1", ["1", "2"]), ("3", ["1", "2"])], ["CK112", "CK306"]),
        ([("1", ["1", "2"]), ("2", ["1", "2"]), ("3", ["1", "2"])], ["CK112", "CK306"]),
        ([("1", ["1", "2"]), ("2", ["1", "2", "3"]), ("9", None)], ["CK306"]),
        ([("1", None), ("1", ["1", "2"])], ["CK305"]),
    ],
)
def test_accepted_answers_are_no_conflict(tmp_path: Path, rows: list[Any], expected: list[str]) -> None:
    write(tmp_path, {}, train=[asked(number, *said) for number, said in enumerate(rows)])
    assert codes(report_of(tmp_path)) == expected


def test_many_accepted_answers_are_not_counted_as_conflicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lookup", "duplicates"):
        monkeypatch.setattr(f"convkit.rules.{module}.MAX_LISTED", 3)
    rows = []
    for number in range(5):
        for answer in ("1", "2"):
            said = turn(f"How much is {number}?", assistant=answer, answers=["1", "2"])
            rows.append(row(f"{number}-{answer}", conversations=[said]))
    write(tmp_path, {}, train=rows)
    assert codes(report_of(tmp_path)) == []


def test_rows_of_several_turns_have_no_classes(tmp_path: Path) -> None:
    def twice(number: int, answer: str) -> dict[str, Any]:
        said = turn(f"And {number}?", assistant=answer)
        return {**labelled(number, answer), "conversations": [turn("Hm?", assistant="Hm."), said]}

    train = [twice(number, "no") for number in range(200)]
    write(tmp_path, {}, train=train, val=[twice(1000, "yes"), twice(1001, "no")])
    assert codes(report_of(tmp_path)) == []


def test_free_answers_are_no_classes(tmp_path: Path) -> None:
    train = [labelled(number, f"It is {number}.") for number in range(50)] + [labelled(60 + k, "yes") for k in range(9)]
    write(tmp_path, {}, train=train, val=[labelled(100, "Something else.")])
    assert codes(report_of(tmp_path)) == []


def test_a_row_with_a_bad_neighbour_is_still_found(tmp_path: Path) -> None:
    """The second look passes over what the first one refused."""
    write(tmp_path, {"a.png": png(), "b.png": png()}, train=[row("1", ["a.png"])])
    path = tmp_path / "pets_train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"{\n" + lines({**row("1", ["b.png"]), "id": "2"}))
    assert codes(report_of(tmp_path)) == ["CK006", "CK002", "CK305"]

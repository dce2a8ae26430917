"""CK307 to CK310: images and groups in more than one split."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit import layout
from convkit.rules import lookup, splits
from tests.fixtures.builders import lines, photo, png, row, turn
from tests.rules.helpers import write_dataset
from tests.validate.helpers import codes, report_of


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
def test_split_names_are_the_differing_parts_of_file_names(names: list[str], expected: list[str]) -> None:
    assert layout.split_names([Path(name) for name in names]) == expected


hashes = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.integers(0, 255), max_size=9), st.integers(0, 2)), min_size=2, max_size=30
)


@given(hashes)
def test_the_band_search_finds_all_near_duplicates(made: list[tuple[int, set[int], int]]) -> None:
    """Compare the band search with a comparison of all pairs."""
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


def test_duplicate_images_within_a_split_are_not_reported(tmp_path: Path) -> None:
    copies = {"a.png": png(), "b.png": png(), "c.png": photo(), "d.png": photo(shift=1), "e.png": png(value=9)}
    asked = [turn("Same?", images=["a.png", "b.png"], assistant="yes"), turn("Why?", images=["c.png"], assistant="So.")]
    train = [
        row("1", ["a.png", "a.png", "b.png"]),
        row("2", ["c.png"]),
        row("3", ["d.png"]),
        row("4", conversations=asked),
    ]
    write_dataset(tmp_path, copies, train=train, val=[row("5", ["e.png"])])
    assert codes(report_of(tmp_path)) == []


def test_with_headers_only_a_shared_path_is_reported(tmp_path: Path) -> None:
    copies = {"a.png": png(), "b.png": png(value=1), "c.png": png(value=1)}
    write_dataset(tmp_path, copies, train=[row("1", ["a.png", "b.png"])], val=[row("2", ["c.png", "a.png"])])
    (finding,) = report_of(tmp_path, media="header").findings
    assert (finding.code, finding.pointer) == ("CK307", "/conversations/0/images/1")
    assert len(report_of(tmp_path).findings) == 2


def test_the_finding_names_both_locations(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a.png": png()}, train=[row("0"), row("1", ["a.png"])], val=[row("2", ["a.png"])])
    (finding,) = report_of(tmp_path).findings
    assert (finding.file, finding.line, finding.row_id) == (f"{tmp_path}/pets_val.jsonl", 1, "2")
    assert f"{tmp_path}/pets_train.jsonl:2 in split train" in finding.message


def test_training_splits_may_share_images_and_groups(tmp_path: Path) -> None:
    images = {"a.png": png(), "b.png": png(value=1), "photo.png": photo(), "again.png": photo(shift=1)}
    captions = [row("0", ["a.png"], group="g"), row("1", ["b.png"]), row("2", ["photo.png"])]
    questions = [row("3", ["a.png"], group="g"), row("4", ["b.png"], group="h"), row("5", ["again.png"])]
    for number, found in enumerate(questions):
        found["conversations"][0]["user"] = f"Question {number}?"
    write_dataset(tmp_path, images, train_captions=captions, train_vqa=questions)
    assert codes(report_of(tmp_path)) == []
    content = lines(row("6", ["b.png"], group="h", conversations=[turn("Hm?", images=["b.png"], assistant="No.")]))
    (tmp_path / "pets_val_vqa.jsonl").write_bytes(content)
    assert [(f.code, f.line) for f in report_of(tmp_path).findings] == [("CK307", 1), ("CK310", 1)]


def test_findings_beyond_the_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lookup", "duplicates", "splits", "labels"):
        monkeypatch.setattr(f"convkit.rules.{module}.MAX_LISTED", 3)
    assert lookup.MAX_LISTED == 3
    pictures = {f"{number}.png": png(value=number) for number in range(5)}
    train = [row(str(number), [name], group=name) for number, name in enumerate(pictures)]
    twins = [{**found, "id": f"twin {found['id']}"} for found in train]
    write_dataset(tmp_path, pictures, train=train, val=twins)
    findings = report_of(tmp_path).findings
    for code in ("CK305", "CK307", "CK310"):
        found = [finding for finding in findings if finding.code == code]
        assert len(found) == 4
        assert sum("2 more findings of this rule are not listed" in finding.message for finding in found) == 1

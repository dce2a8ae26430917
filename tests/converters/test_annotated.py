"""Find annotation files, and parse the options that all annotated datasets share."""

from pathlib import Path

import pytest

from convkit.converters.annotated import fill_template, find_annotation_files, word_pair
from convkit.errors import SourceError


def touch_files(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"12")


def test_annotation_files_are_found_by_name_and_split(tmp_path: Path) -> None:
    touch_files(tmp_path, "a/dev.json", "train.json", "train_new.json", "other.json")
    found = find_annotation_files(tmp_path, ["dev", "train", "test"], ["{split}_new.json", "{split}.json"])
    assert list(found.items()) == [("dev", "a/dev.json"), ("train", "train_new.json")]
    touch_files(tmp_path, "b/dev.json")
    with pytest.raises(SourceError, match=r"contains 2 files dev.json: a/dev.json, b/dev.json"):
        find_annotation_files(tmp_path, ["dev"], ["{split}.json"])
    with pytest.raises(SourceError, match=r"contains no annotations. Looked for val.json, at any depth\. Point"):
        find_annotation_files(tmp_path, ["val"], ["{split}.json"])
    with pytest.raises(SourceError, match=r"Looked for val.json, or tables, at any depth\. Point"):
        find_annotation_files(tmp_path, ["val"], ["{split}.json"], "tables")


def test_braces_inside_values_are_not_replaced() -> None:
    assert fill_template("{a} {b} {c} {", a="{b}", b="\\1") == "{b} \\1 {c} {"


def test_a_word_pair_is_parsed_from_text() -> None:
    read = word_pair(("True", "False"))
    assert [read(value) for value in ("", "ja, nein", ["a", "b"])] == [("True", "False"), ("ja", "nein"), ["a", "b"]]
    for bad in ("one", "a,a", "a,", "a,b,c", ["a"]):
        with pytest.raises(ValueError, match="two different words"):
            read(bad)

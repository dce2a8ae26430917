"""Row files are read line by line and datasets row by row; errors name the file and line."""

import shutil
import tracemalloc
from pathlib import Path

import pytest

from convkit.dataset import Dataset, Line, read_lines
from convkit.errors import DatasetError
from tests.fixtures.builders import lines, row
from tests.validate.helpers import copy_of


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"a", [Line(1, b"a", False)]),
        (b"a\n", [Line(1, b"a", False)]),
        (b"\n\r\nb", [Line(1, b"", False), Line(2, b"\r", False), Line(3, b"b", False)]),
        (b"1234\n12345\n1", [Line(1, b"1234", False), Line(2, b"", True), Line(3, b"1", False)]),
        (b"1234", [Line(1, b"1234", False)]),
        (b"12345", [Line(1, b"", True)]),
        (b"12345\n", [Line(1, b"", True)]),
        (b"x" * 200_000 + b"\n1", [Line(1, b"", True), Line(2, b"1", False)]),
    ],
)
def test_lines_are_split_at_line_feeds(tmp_path: Path, content: bytes, expected: list[Line]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    seen: list[bytes] = []
    assert list(read_lines(path, 4)) == expected
    assert list(read_lines(path, 4, lambda block: seen.append(bytes(block)))) == expected
    assert b"".join(seen) == content
    assert max(map(len, seen)) <= 65_536


def test_a_line_of_any_length_takes_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.truncate(50 * 2**20)
    tracemalloc.start()
    try:
        assert [line.overlong for line in read_lines(path, 2**20)] == [True]
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_rows_come_with_file_and_line(tmp_path: Path) -> None:
    dataset = Dataset.open(copy_of("valid/with_manifest", tmp_path))
    path = dataset.path("train")
    assert [(address, found.id) for address, found in dataset.rows("train")] == [(f"{path}:1", "1"), (f"{path}:2", "2")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", r"pets_train\.jsonl:3 is not a valid row: Invalid JSON.*Run `convkit validate "),
        (b'{"id": "a"}', r"pets_train\.jsonl:3 .*source: Field required"),
        (b"\n", r"pets_train\.jsonl:3 "),
    ],
)
def test_an_invalid_row_ends_reading_with_its_file_and_line(tmp_path: Path, content: bytes, reason: str) -> None:
    dataset = Dataset.open(copy_of("valid/with_manifest", tmp_path))
    with dataset.path("train").open("ab") as file:
        file.write(content)
    with pytest.raises(DatasetError, match=reason):
        list(dataset.rows("train"))


def test_a_missing_row_file_and_an_unknown_split_are_errors(tmp_path: Path) -> None:
    dataset = Dataset.open(copy_of("valid/with_manifest", tmp_path))
    dataset.path("val").unlink()
    with pytest.raises(DatasetError, match=r"pets_val\.jsonl cannot be read \(No such file"):
        list(dataset.rows("val"))
    with pytest.raises(DatasetError, match=r"no split 'test'\. Choose one of: train, val"):
        list(dataset.rows("test"))


def test_a_directory_without_a_valid_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no dataset\.json"):
        Dataset.open(tmp_path)
    (tmp_path / ".partial").mkdir()
    with pytest.raises(DatasetError, match="is not finished"):
        Dataset.open(tmp_path)
    manifest = tmp_path / "dataset.json"
    for content, reason in [
        (b"\xff", "is not a manifest: Invalid JSON"),
        (b"[]", "is not a manifest: Input should be an object"),
        (b'{"format_version": 1}', "is not a manifest: name: Field required"),
        (b'{"format_version": 2}', "is of format version 2; this convkit reads version 1. Upgrade"),
    ]:
        manifest.write_bytes(content)
        with pytest.raises(DatasetError, match=reason):
            Dataset.open(tmp_path)
    manifest.unlink()
    manifest.mkdir()
    with pytest.raises(DatasetError, match="Is a directory"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("name", ["../x.jsonl", "/x.jsonl", "x", "sub/x.jsonl", ".jsonl", "x\\y.jsonl", "x.jsonl\n"])
def test_a_manifest_names_only_row_files_in_its_own_folder(tmp_path: Path, name: str) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    manifest = directory / "dataset.json"
    encoded = name.replace("\\", "\\\\").replace("\n", "\\n")
    manifest.write_text(manifest.read_text().replace("pets_val.jsonl", encoded))
    with pytest.raises(DatasetError, match=r"splits\.val\.file"):
        Dataset.open(directory)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    shutil.rmtree(directory)
    with pytest.raises(DatasetError, match="Pass a dataset directory that convkit convert wrote"):
        Dataset.open(directory)


def test_an_overlong_row_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(copy_of("valid/with_manifest", tmp_path))
    dataset.path("val").write_bytes(lines(row("1"))[:-1] + b" " * 2**24)
    with pytest.raises(DatasetError, match=r"pets_val\.jsonl:1 .*longer than 16,777,216 bytes"):
        list(dataset.rows("val"))

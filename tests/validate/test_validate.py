"""`validate` opens paths as datasets, reads rows and images once, and collects the findings in order."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convkit.errors import ConvkitError, DatasetError
from convkit.media.images import ImageJob
from convkit.reporters.formatting import by_rule
from convkit.utils.progress import Note, Progress
from convkit.validate.run import validate
from tests.fixtures.builders import line, lines, png, row, turn
from tests.validate.helpers import codes, copy_of, report_of, write_rows


def messages(path: Path) -> list[str]:
    return [finding.message for finding in report_of(path, media="none").findings]


def test_a_row_file_uses_the_images_beside_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path, lines(row("1", ["a.png"])))
    assert codes(report_of(path)) == ["CK201"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png())
    (tmp_path / "images" / "orphan.png").write_bytes(png())
    assert codes(report_of(path)) == []
    assert codes(report_of(tmp_path)) == ["CK303"]


def test_findings_show_relative_paths_as_they_were_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of("invalid/CK303_orphan_image", tmp_path)
    monkeypatch.chdir(tmp_path)
    findings = report_of(Path("CK303_orphan_image")).findings
    assert [finding.file for finding in findings] == [
        "CK303_orphan_image/images/b.png",
        "CK303_orphan_image/images/sub/Thumbs.db",
    ]


def test_files_of_one_directory_are_one_dataset(tmp_path: Path) -> None:
    paths = []
    for folder, name in [("1", "a"), ("1", "b"), ("2", "c")]:
        path = tmp_path / folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(lines(row("same")))
        paths.append(path)
    report = validate([*paths, paths[0]], media="none").report
    assert report.summary.rows == 3
    assert [(finding.code, finding.file) for finding in report.findings] == [("CK301", str(paths[1]))]
    assert f"{paths[0]}:1" in report.findings[0].message


def test_compressed_files_of_a_directory_are_read_unless_the_plain_ones_lie_beside_them(tmp_path: Path) -> None:
    for name, row_id in (("x_train.jsonl", "1"), ("x_train.jsonl.gz", "1"), ("x_val.jsonl.gz", "1")):
        content = lines(row(row_id))
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    report = report_of(tmp_path)
    assert report.summary.rows == 2
    assert [(f.code, f.file) for f in report.findings] == [("CK301", f"{tmp_path}/x_val.jsonl.gz")]


def test_a_file_passed_with_its_directory_is_read_once(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK304_foreign_rows", tmp_path)
    listed, foreign = directory / "pets_train.jsonl", directory / "pets_old.jsonl"
    report = validate([listed, directory, directory], media="none").report
    assert (report.summary.rows, codes(report)) == (1, ["CK304"])
    assert codes(validate([foreign, directory], media="none").report) == ["CK304", "CK002"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "does not exist"),
        ("missing.jsonl", "does not exist"),
        ("folder", r"folder has no row files"),
        ("unfinished", r"is not finished. Run the same"),
        ("note.txt", "is not a row file"),
        ("pipe.jsonl", "is not a row file"),
    ],
)
def test_paths_that_are_not_datasets_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "unfinished" / ".partial").mkdir(parents=True)
    (tmp_path / "note.txt").touch()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(ConvkitError, match=reason):
        validate([tmp_path / name])


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("convkit.validate.chunks.open_rows", refuse)
    with pytest.raises(ConvkitError, match=r"x_train\.jsonl cannot be read: Permission denied"):
        validate([write_rows(tmp_path, lines(row()))])


def test_each_image_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def run(task: Any, items: Any, workers: int, on_crash: Any, imports: Any = ()) -> Any:
        for item in items:
            if isinstance(item, ImageJob):
                looked.append(item.relative)
                yield on_crash(item)
            else:
                yield task(item)

    monkeypatch.setattr("convkit.validate.run.pool.run", run)
    path = write_rows(tmp_path, lines(row("1", ["a.png", "b.png", "a.png"]), row("2", ["b.png", "c.png"])))
    report = validate([path], workers=2).report
    assert looked == ["a.png", "b.png", "c.png"]
    assert [(f.code, f.line, f.pointer, f.row_id) for f in report.findings] == [
        ("CK204", 1, "/conversations/0/images/0", "1"),
        ("CK204", 1, "/conversations/0/images/1", "1"),
        ("CK204", 2, "/conversations/0/images/1", "2"),
    ]
    assert report.findings[0].message == "'a.png' crashed the decoder"


def test_worker_processes_give_the_findings_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    names = [f"{index}.png" for index in range(40)]
    for index, name in enumerate(names):
        (tmp_path / "images" / name).write_bytes(png()[: 30 if index % 3 == 0 else None])
    path = write_rows(tmp_path, lines(*(row(name, [name]) for name in names)))
    report = validate([path], workers=2).report
    assert codes(report) == ["CK204"] * 14
    assert report == report_of(path)


def test_no_process_starts_without_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.utils.pool.ProcessPoolExecutor", None)
    path = write_rows(tmp_path, lines(row("1", ["missing.png"])))
    assert codes(validate([path], media="none", workers=4).report) == []


def test_reading_headers_finds_no_truncated_image(tmp_path: Path) -> None:
    cut = copy_of("invalid/CK204_undecodable_image", tmp_path)
    assert [finding.message for finding in report_of(cut, media="header").findings] == [
        "'text.png' is not one of JPEG, PNG, WEBP, GIF, BMP, TIFF"
    ]
    assert codes(report_of(copy_of("invalid/CK205_pixel_bomb", tmp_path), media="header")) == ["CK205"]


def test_progress_counts_the_bytes_of_all_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(*(row(f"{name}{index}") for index in range(1000))))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    validate([tmp_path], media="none", workers=0, bars=(seen := Bars()))
    (calls,) = seen.calls.values()
    assert list(seen.calls) == [("reading rows", "B")]
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_progress_counts_the_images(tmp_path: Path) -> None:
    path = write_rows(tmp_path, lines(row("1", ["a.png", "b.png", "a.png"]), row("2", ["c.png"])))
    validate([path], workers=0, bars=(seen := Bars()))
    assert seen.calls["reading images", "images"] == [(1, 3), (2, 3), (3, 3)]


class Bars:
    """Records the updates of progress bars."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], list[tuple[int, int | None]]] = {}

    @contextmanager
    def __call__(self, description: str, unit: str, note: Note = str) -> Iterator[Progress]:
        calls = self.calls.setdefault((description, unit), [])
        yield lambda done, whole: calls.append((done, whole))


def test_findings_have_the_row_id_if_it_can_be_read(tmp_path: Path) -> None:
    path = write_rows(tmp_path, lines({"id": "me"}, {"id": 1}, [], row("n", metadata={"x": float("inf")})) + b"{")
    ids = {finding.line: finding.row_id for finding in report_of(path).findings}
    assert ids == {1: "me", 2: None, 3: None, 4: "n", 5: None}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"id":\n', "invalid JSON at line 2, column 6: EOF while parsing a value"),
        (b'{"id":', "the file ends in the middle of a row, at line 2, column 6"),
        (b'{"id": "\xc3', "the file ends in the middle of a character"),
        ('{"é": x}'.encode(), "invalid JSON at line 2, column 7: expected value"),
        (b'{"id": "a", "n": -Infinity}\n', "invalid JSON at line 2, column 18: -Infinity is not a JSON number"),
        (b'{"metadata": {"NaN \\" NaN": [NaN]}}\n', "invalid JSON at line 2, column 30: NaN is not a JSON number"),
        (
            b'{\0"\0',
            "invalid JSON at line 2, column 2: key must be a string; "
            "the line contains NUL bytes, so the file may be UTF-16",
        ),
        (b'{"id": "\xff"}\n', "byte 9 of the line, 0xff, is not valid UTF-8"),
    ],
)
def test_invalid_json_is_reported_with_its_position(tmp_path: Path, raw: bytes, message: str) -> None:
    assert messages(write_rows(tmp_path, lines(row("1")) + raw)) == [message]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[" * 100_000, "recursion limit exceeded"),
        (b'{"metadata": ' + b'{"a":' * 100_000, "recursion limit exceeded"),
        (b'{"id": ' + b"9" * 10_000 + b"}", "number out of range"),
    ],
)
def test_limits_of_the_parser_are_findings(tmp_path: Path, raw: bytes, reason: str) -> None:
    (message,) = messages(write_rows(tmp_path, raw))
    assert message.startswith("invalid JSON at line 1, column ") and message.endswith(reason)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asistant": 1}, "unknown key 'asistant'; did you mean 'assistant'?"),
        ({"Images": []}, "unknown key 'Images'; did you mean 'images'?"),
        ({"x" * 100: 1}, f"unknown key '{'x' * 80}…'; known keys: images, user, assistant, answers"),
        ({"assistant": None}, "assistant must be a string, not null; leave out keys that are not used"),
        ({"user": True}, "user must be a string, not a boolean"),
        ({"user": 10**4000}, "user must be a string, not a number"),
        ({"images": {}}, "images must be a list, not an object"),
        ({"images": [1.5]}, "an item of images must be a string, not a number"),
        ({"images": ["x" * 1025]}, "an item of images has 1,025 characters, the limit is 1,024"),
        ({"images": ["../" + "y" * 100]}, f"'../{'y' * 77}…' is not a portable path relative to images/"),
        ({"answers": []}, "answers is empty"),
    ],
)
def test_problems_of_a_turn_are_explained(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bad = turn(**{"assistant": "", **change})
    assert messages(write_rows(tmp_path, lines(row(conversations=[bad])))) == [message]


def test_numbers_in_metadata_must_be_finite(tmp_path: Path) -> None:
    path = write_rows(tmp_path, line(row(metadata={"x": 1})).replace(b'"x":1', b'"x":1e999') + b"\n")
    assert messages(path) == ["metadata: numbers must be finite"]


def test_all_findings_of_a_row_are_reported_at_once(tmp_path: Path) -> None:
    bad = row(conversations=[turn("<image>", images=["/a", "b"]), turn(images=["../c"], assistant=3)], extra=1)
    findings = report_of(write_rows(tmp_path, lines(bad))).findings
    assert [(finding.code, finding.pointer) for finding in findings] == [
        ("CK101", "/conversations/1/assistant"),
        ("CK101", "/extra"),
        ("CK102", "/conversations/0/user"),
        ("CK103", "/conversations/0"),
        ("CK202", "/conversations/0/images/0"),
        ("CK202", "/conversations/1/images/0"),
    ]


def test_pointers_escape_keys(tmp_path: Path) -> None:
    findings = report_of(write_rows(tmp_path, lines({**row(), "a/b~c": 1}))).findings
    assert [finding.pointer for finding in findings] == ["/a~1b~0c"]


def test_a_file_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/\xff.png")).write_bytes(png())
    except OSError:
        pytest.skip("this file system has text names only")
    write_rows(tmp_path, lines(row()))
    report = report_of(tmp_path)
    assert report.findings[0].file == f"{tmp_path}/images/\\xff.png"
    assert report.model_dump_json()


def test_orphan_images_are_not_reported_if_a_row_is_invalid(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK303_orphan_image", tmp_path)
    with (directory / "pets_train.jsonl").open("ab") as file:
        file.write(b"{")
    assert codes(report_of(directory)) == ["CK009"]


def test_invalid_rows_are_not_compared_to_the_manifest(tmp_path: Path) -> None:
    directory = copy_of("valid/with_manifest", tmp_path)
    path = directory / "pets_train.jsonl"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert [(finding.code, finding.pointer) for finding in report_of(directory).findings] == [
        ("CK302", "/splits/train/sha256"),
        ("CK002", None),
    ]


def test_an_unfinished_conversion_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    (tmp_path / "pets_train.jsonl").write_text("")
    with pytest.raises(DatasetError, match="is not finished"):
        validate([tmp_path], workers=0)


def test_duplicate_ids_after_byte_order_marks_are_found(tmp_path: Path) -> None:
    path = write_rows(tmp_path, 2 * b"\xef\xbb\xbf" + lines(row("1"), row("1")))
    assert sorted(codes(report_of(path, media="none"))) == ["CK006", "CK301"]


def test_findings_beyond_the_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.validate.scan.MAX_KEPT", 3)
    path = write_rows(tmp_path, b"x\n" * 5 + b"\n" * 3)
    report = report_of(path)
    findings = report.findings
    assert [finding.code for finding in findings].count("CK002") == 4
    assert [finding.code for finding in findings].count("CK004") == 3
    (counted,) = (finding for finding in findings if finding.line is None)
    assert (counted.code, counted.message) == ("CK002", "2 more findings of this rule are not listed")
    assert (counted.count, report.summary.errors) == (2, 8)
    assert [(finding.code, count) for finding, count in by_rule(report)] == [("CK002", 5), ("CK004", 3)]

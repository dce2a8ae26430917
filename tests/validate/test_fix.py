"""`--fix` changes only what a finding names, and leaves some files unchanged."""

import gzip
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from convkit.cli import app
from convkit.rules.registry import RULES
from convkit.validate import fix as fixing
from convkit.validate.fix import FIXERS, fix_files
from tests.fixtures.builders import line, lines, row
from tests.validate.helpers import codes, copy_of, report_of, write_rows

BOM = b"\xef\xbb\xbf"


def fixed(path: Path) -> list[str]:
    return [str(change).removeprefix(f"{path}:") for change in fix_files(report_of(path).findings).changes]


def test_blank_lines_and_byte_order_marks_are_removed_in_one_run(tmp_path: Path) -> None:
    first, second = line(row("1")), line(row("2"))
    path = write_rows(tmp_path, BOM + first + b"\r\n\n \t\r\n" + BOM + second + b"\n\r\n" + line(row("3")))
    path.chmod(0o640)
    assert fixed(path) == [
        "1: CK006 byte-order-mark: byte order mark removed",
        "2: CK004 blank-line: line removed",
        "3: CK004 blank-line: line removed",
        "4: CK006 byte-order-mark: byte order mark removed",
        "5: CK004 blank-line: line removed",
        "6: CK010 no-last-line-end: line feed added",
    ]
    assert path.read_bytes() == first + b"\r\n" + second + b"\n" + line(row("3")) + b"\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert codes(report_of(path)) == [] and fixed(path) == []


def test_answers_are_stripped_and_nothing_else_of_their_rows_changes(tmp_path: Path) -> None:
    before = (
        b'{"id": "1","source":"a","metadata":{"n":1.0e5,"quoted":"\\"assistant\\": \\" x \\""},'
        b'"conversations":[{"images":[],"user":" Hm? ","assistant": "\\n a \\"caf\\u00e9\\" \\u00a0"},'
        b'{"user":"And?","assistant" :"b ","images":[]}]}\r\n'
    )
    after = before.replace(b'"\\n a \\"caf\\u00e9\\" \\u00a0"', '"a \\"café\\""'.encode()).replace(b'"b "', b'"b"')
    path = write_rows(tmp_path, before)
    assert codes(report_of(path)) == ["CK106", "CK106"]
    assert fixed(path) == ["1: CK106 padded-answer: answer stripped"]
    assert path.read_bytes() == after
    assert codes(report_of(path)) == [] and fixed(path) == []


def test_metadata_keys_named_assistant_are_unchanged(tmp_path: Path) -> None:
    before = (
        b'{"metadata":{"assistant":" b","n":-1.0e5,"l":[1,{"assistant":" c"}],"big":%s},"id":"1","source":"a",'
        b'"conversations" : [ {"images":[],"user":"Hm?","\\u0061ssistant":"a "},'
        b'{"user":"[{\\"assistant\\":\\" d\\"}]","assistant":" e","images":[]} ]}\n'
    ) % (b"9" * 4300)
    path = write_rows(tmp_path, before)
    found = report_of(path).findings
    assert [(f.code, f.fixable) for f in found] == [("CK106", True), ("CK106", True)]
    assert fixed(path) == ["1: CK106 padded-answer: answer stripped"]
    assert path.read_bytes() == before.replace(b'"a "', b'"a"').replace(b'" e"', b'"e"')
    assert codes(report_of(path)) == [] and fixed(path) == []


def test_findings_beyond_the_listed_ones_are_fixed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.validate.scan.MAX_KEPT", 3)
    path = write_rows(tmp_path, b"\n" * 10 + lines(row("1")))
    result = CliRunner().invoke(app, ["validate", str(path), "--fix", "--workers", "0"])
    assert (result.exit_code, path.read_bytes()) == (0, lines(row("1")))


def test_findings_without_a_fixer_leave_the_file_unchanged(tmp_path: Path) -> None:
    content = b"{\n" + lines(row("1"), row("1")) + b"\xff\n"
    path = write_rows(tmp_path, content)
    before = path.stat().st_ino
    assert codes(report_of(path)) == ["CK002", "CK301", "CK001"]
    assert fixed(path) == []
    assert (path.read_bytes(), path.stat().st_ino) == (content, before)


def test_overlong_lines_are_copied_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixing, "MAX_LINE_BYTES", 300)
    content = b" " * 1000 + b"x\n" + lines(row("1"))
    path = write_rows(tmp_path, content + b"\n" + lines(row("2")) + b" " * 301)
    found = [f for f in report_of(path).findings if f.code == "CK004"]
    assert [f.line for f in found] == [3, 5]
    assert [change.line for change in fix_files(found).changes] == [3]
    assert path.read_bytes() == content + lines(row("2")) + b" " * 301


@pytest.mark.parametrize("kind", ["manifest", "link"])
def test_complete_datasets_and_links_are_unchanged(tmp_path: Path, kind: str) -> None:
    directory = copy_of("valid/with_manifest" if kind == "manifest" else "valid/crlf", tmp_path)
    path = directory / "pets_train.jsonl"
    if kind == "link":
        path = path.rename(tmp_path / "elsewhere.jsonl")
        (directory / "pets_train.jsonl").symlink_to(path)
    content = b"\n" + path.read_bytes()
    path.write_bytes(content)
    changes, skipped = fix_files(report_of(directory).findings)
    assert (changes, path.read_bytes()) == ([], content)
    (reason,) = skipped
    assert reason.startswith(f"not fixed: {directory / 'pets_train.jsonl'}: ")
    assert ("Convert the source again" if kind == "manifest" else "symbolic link") in reason


def test_compressed_files_are_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(line(row("1"))))
    before = path.read_bytes()
    changes, skipped = fix_files(report_of(path).findings)
    assert (changes, path.read_bytes()) == ([], before)
    assert skipped == [f"not fixed: {path}: it is compressed. Decompress it, fix it, and compress it again."]


def test_files_with_names_that_are_not_utf8_are_unchanged(tmp_path: Path) -> None:
    path = Path(str(tmp_path / "\udcff.jsonl"))
    path.write_bytes(b"\n" + lines(row("1")))
    assert fixed(path) == []


def test_every_fixer_belongs_to_a_rule() -> None:
    assert all(RULES[code] is fixer.rule for code, fixer in FIXERS.items())


pieces = st.sampled_from(
    [b"\n", b"\r\n", b" \n", BOM + b"\n", BOM, line(row("1")) + b"\n", line(row("2")), b"x\n", b" "]
)


@settings(max_examples=60)
@given(st.lists(pieces, max_size=6).map(b"".join))
def test_fixing_keeps_every_row_and_one_run_is_enough(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write_rows(tmp_path_factory.mktemp("fix"), content)

    def kept() -> list[bytes]:
        raw = (part.replace(BOM, b"") for part in path.read_bytes().split(b"\n"))
        return [part for part in raw if part.strip()]

    before = kept()
    fixed(path)
    assert fixed(path) == []  # once is enough
    assert "CK004" not in codes(report_of(path))
    assert kept() == before

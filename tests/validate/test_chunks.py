"""Row files are cut into chunks of whole lines, and chunking never changes the findings."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convkit.errors import ConvkitError
from convkit.rules.base import RowFile
from convkit.validate.chunks import RowChunk, read_chunks
from convkit.validate.run import validate
from tests.fixtures.builders import line, lines, row
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import copy_of, report_of, set_chunk_bytes, write_rows

INVALID = sorted(path.name for path in (DIRECTORY / "invalid").iterdir())


SLOW = pytest.mark.slow


@pytest.mark.parametrize("size", [pytest.param(1, marks=SLOW), 7, pytest.param(100, marks=SLOW)])
@pytest.mark.parametrize("name", INVALID)
def test_chunks_of_any_size_give_the_same_findings(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(f"invalid/{name}", tmp_path)
    monkeypatch.setattr("convkit.validate.run.MAX_LINE_BYTES", 4096)
    whole = report_of(directory)
    set_chunk_bytes(monkeypatch, size)
    assert report_of(directory) == whole


def test_any_number_of_workers_gives_the_same_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(
        b"{" * (k % 7 == 0) + line(row(str(k % 90), [f"{k % 50}.png"], system=" " * (k % 11))) + b"\n"
        for k in range(300)
    )
    path = write_rows(tmp_path, content)
    set_chunk_bytes(monkeypatch, 4096)
    reports = [validate([path], workers=workers).report for workers in (0, 1, 2)]
    assert reports[0].findings and reports[0] == reports[1] == reports[2]


@given(st.binary(max_size=60).map(lambda raw: raw.replace(b"\x00", b"\n")), st.integers(1, 20), st.integers(0, 10))
@example(b"12345678\n1\n12", 3, 4)
def test_chunks_are_whole_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int, max_line: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_chunk_bytes(monkeypatch, size)
        seen: list[int] = []
        pieces = list(read_chunks(RowFile(path), max_line, seen.append))
    raws = content.split(b"\n")
    raws = raws if raws[-1] else raws[:-1]
    found: dict[int, bytes | None] = {}
    for piece in pieces:
        assert not piece.overlong or piece.read() == b""
        parts = [None] if piece.overlong else piece.read().removesuffix(b"\n").split(b"\n")
        found.update(enumerate(parts, piece.first_line))
    assert list(found) == list(range(1, len(raws) + 1))
    for number, raw in enumerate(raws, 1):
        assert found[number] == raw or (found[number] is None and len(raw) > max_line)
    assert sum(seen) == len(content)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path, lines(row()))

    def meddle(_: int) -> None:
        os.truncate(path, 3)

    with pytest.raises(ConvkitError, match=r"x_train\.jsonl changed while it was read"):
        list(read_chunks(RowFile(path), 100, meddle))


def test_a_worker_that_dies_ends_the_run_with_the_line(tmp_path: Path) -> None:
    from convkit.validate.run import _raise_crash

    with pytest.raises(ConvkitError, match=r"x\.jsonl from line 7 on died"):
        _raise_crash(RowChunk("x.jsonl", 0, 0, 7, b"", 0))

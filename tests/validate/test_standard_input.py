"""Rows are read from standard input, which is limited in size."""

import errno
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from convkit.errors import ConvkitError
from convkit.validate.run import validate
from tests.fixtures.builders import lines, row
from tests.validate.helpers import write_images


def test_rows_are_read_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path)
    monkeypatch.chdir(tmp_path)
    content = lines(row("1", ["0.png"]), row("2", ["none.png"]), row("1", ["0.png"]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    report = validate([Path("-")], workers=0).report
    assert [(f.code, f.file, f.line) for f in report.findings] == [("CK201", "<stdin>", 2), ("CK301", "<stdin>", 3)]


def test_endless_standard_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.validate.inputs.MAX_STDIN_BYTES", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n" * 11)))
    with pytest.raises(ConvkitError, match=r"more than 10 bytes\. Write the rows to a file"):
        validate([Path("-")], workers=0)


def test_a_full_disk_is_an_error_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Full()))
    with pytest.raises(ConvkitError, match=r"\(No space left on device\)\. Write the rows"):
        validate([Path("-")], workers=0)

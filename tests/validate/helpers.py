"""Helpers of the tests of the validator."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from convkit.findings import Finding, Report
from convkit.profiles import TargetModel
from convkit.validate.run import validate
from tests.fixtures.builders import lines, png, row
from tests.fixtures.make_datasets import DIRECTORY


def copy_of(name: str, to: Path) -> Path:
    """Copy a fixture such as valid/crlf, because validation may write a receipt."""
    return Path(shutil.copytree(DIRECTORY / name, to / Path(name).name, symlinks=True))


def target_for(directory: Path) -> TargetModel | None:
    """Return the target model of a fixture: model.json, if present, holds arguments of `TargetModel.from_options`."""
    path = directory / "model.json"
    return TargetModel.from_options(**json.loads(path.read_bytes())) if path.exists() else None


def report_of(path: Path, **options: Any) -> Report:
    return validate([path], workers=0, **options).report


def flat(finding: Finding, root: Path) -> str:
    """Return a finding as a line of expected.txt."""
    place = str(Path(finding.file).relative_to(root))
    if finding.line:
        place += f":{finding.line}"
    return " ".join(filter(None, (finding.code, place, finding.pointer)))


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def write_rows(directory: Path, content: bytes) -> Path:
    path = directory / "x_train.jsonl"
    path.write_bytes(content)
    return path


def write_images(tmp_path: Path, count: int = 5) -> Path:
    """Write one image per row, and return the row file."""
    (tmp_path / "images").mkdir()
    names = [f"{index}.png" for index in range(count)]
    for name in names:
        (tmp_path / "images" / name).write_bytes(png())
    return write_rows(tmp_path, lines(*(row(name, [name]) for name in names)))


def set_chunk_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Cut row files into chunks of this size."""
    for module in ("convkit.validate.chunks", "convkit.validate.run"):
        monkeypatch.setattr(f"{module}.CHUNK_BYTES", size)

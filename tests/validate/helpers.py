"""What the tests of the validator share."""

import json
import shutil
from pathlib import Path
from typing import Any

from convkit.findings import Finding, Report
from convkit.profiles import TargetModel
from convkit.validate.run import validate
from tests.fixtures.make_datasets import DIRECTORY


def copy_of(name: str, to: Path) -> Path:
    """A copy of a fixture such as valid/crlf, because a validation may write a receipt."""
    return Path(shutil.copytree(DIRECTORY / name, to / Path(name).name, symlinks=True))


def target_for(directory: Path) -> TargetModel | None:
    """Return the target model of a fixture: model.json, if present, holds arguments of `TargetModel.from_options`."""
    path = directory / "model.json"
    return TargetModel.from_options(**json.loads(path.read_bytes())) if path.exists() else None


def report_of(path: Path, **options: Any) -> Report:
    return validate([path], workers=0, **options).report


def flat(finding: Finding, root: Path) -> str:
    """A finding as a line of expected.txt."""
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

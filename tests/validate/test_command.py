"""`convkit validate` from outside: exit codes, and what goes to which stream."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import copy_of


def convkit(*arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "convkit", "validate", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_clean(tmp_path: Path) -> None:
    copy_of("valid/with_manifest", tmp_path)
    done = convkit("with_manifest", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "3 rows, 0 errors, 0 warnings\n")
    assert done.stderr == f"receipt written: {Path('with_manifest/receipt.json')}\n"


def test_findings(tmp_path: Path) -> None:
    copy_of("invalid/CK201_missing_image", tmp_path)
    copy_of("invalid/CK303_orphan_image", tmp_path)
    done = convkit("CK201_missing_image", "CK303_orphan_image", "--format", "json", "--workers", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["summary"] == {"rows": 3, "errors": 3, "warnings": 2}


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    copy_of("invalid/CK303_orphan_image", tmp_path)
    done = convkit("CK303_orphan_image", "--workers", "0", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "convkit: error: nowhere does not exist."),
        ([DIRECTORY / "valid" / "crlf", "--format", "xml"], "Choose one of: text, json."),
        ([DIRECTORY / "valid" / "crlf", "--media", "some"], "'decode', 'header', 'none'"),
        ([], "PATH"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, arguments: list[str | Path], message: str) -> None:
    done = convkit(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr

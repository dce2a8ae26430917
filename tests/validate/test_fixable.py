"""Findings are marked as fixable only if `convkit validate --fix` fixes them."""

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convkit.cli import app
from convkit.validate.fix import fix_files
from tests.fixtures.builders import line, lines, row
from tests.validate.helpers import copy_of, report_of, write_rows


def test_exactly_the_findings_that_fix_changes_are_marked(tmp_path: Path) -> None:
    path = write_rows(tmp_path, b"\n{\n" + line(row("1", ["missing.png"])))
    findings = report_of(path).findings
    fixable = [(finding.line, finding.code) for finding in findings if finding.fixable]
    assert fixable == [(1, "CK004"), (3, "CK010")] and len(findings) == 4
    assert [(change.line, change.fixer.rule.code) for change in fix_files(findings).changes] == fixable


@pytest.mark.parametrize("kind", ["manifest", "link", "compressed"])
def test_findings_in_files_that_fix_leaves_alone_are_not_marked(tmp_path: Path, kind: str) -> None:
    directory = copy_of("valid/with_manifest" if kind == "manifest" else "valid/crlf", tmp_path)
    path = directory / "pets_train.jsonl"
    path.write_bytes(b"\n" + path.read_bytes())
    if kind == "link":
        path.rename(tmp_path / "elsewhere.jsonl")
        path.symlink_to(tmp_path / "elsewhere.jsonl")
    elif kind == "compressed":
        path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    findings = report_of(directory).findings
    assert "CK004" in [finding.code for finding in findings]
    assert not any(finding.fixable for finding in findings)
    assert fix_files(findings).changes == []


def test_findings_in_standard_input_are_not_marked() -> None:
    result = CliRunner().invoke(app, ["validate", "-", "--workers", "0"], input=b"\n" + lines(row("1")))
    assert "CK004 blank-line: " in result.stdout
    assert result.stdout.endswith("Checked 1 row. Found 1 error, 0 warnings.\n")

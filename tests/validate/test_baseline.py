"""A baseline accepts known findings, and validation fails on new ones only."""

from pathlib import Path

import pytest

from convkit.errors import ConvkitError
from convkit.findings import Report, report_of
from convkit.validate import baseline
from tests.fixtures.builders import line, row
from tests.reporters.test_reporters import finding
from tests.validate.helpers import codes
from tests.validate.helpers import report_of as validated


def accepted(path: Path, report: Report) -> baseline.Baseline:
    baseline.write_baseline(path, report)
    return baseline.read_baseline(path)


def test_accepted_findings_are_recognized_after_rows_are_inserted(tmp_path: Path) -> None:
    rows = tmp_path / "x.jsonl"
    bad = [line(row("1", ["no.png"])), b"{", line(row("2")), line(row("2"))]
    rows.write_bytes(b"\n".join(bad) + b"\n")
    before = validated(rows)
    assert codes(before) == ["CK201", "CK002", "CK301"]
    known = accepted(tmp_path / "known.json", before)
    rows.write_bytes(line(row("0")) + b"\n" + b"\n".join(bad) + b"\n")
    after = validated(rows)
    assert [f.line for f in after.findings] == [2, 3, 5]
    compared = baseline.compare_to_baseline(after, known, tmp_path)
    assert (compared.report.findings, compared.accepted, compared.stale) == ([], 3, [])
    assert compared.report.summary.rows == 5


def test_file_names_are_relative_to_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = accepted(tmp_path / "known.json", report_of(1, [finding("d/x.jsonl")]))
    assert known.findings[0].file == "d/x.jsonl"
    moved = report_of(1, [finding(str(tmp_path / "d" / "x.jsonl"))])
    assert baseline.compare_to_baseline(moved, known, tmp_path).accepted == 1
    assert baseline.compare_to_baseline(report_of(1, [finding("e/x.jsonl")]), known, tmp_path).accepted == 0


def test_equal_findings_are_counted(tmp_path: Path) -> None:
    two = report_of(1, [finding(line=1), finding(line=2)])
    known = accepted(tmp_path / "known.json", two)
    assert [entry.count for entry in known.findings] == [2]
    three = report_of(1, [finding(line=n) for n in (1, 2, 3)])
    compared = baseline.compare_to_baseline(three, known, tmp_path)
    assert ([f.line for f in compared.report.findings], compared.accepted) == ([3], 2)
    assert compared.report.summary.errors == 1


def test_entries_that_are_not_found_any_more_are_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = accepted(tmp_path / "known.json", report_of(1, [finding(line=1), finding(line=2), finding("b/y.jsonl")]))
    stale = baseline.compare_to_baseline(report_of(1, [finding()]), known, tmp_path).stale
    assert [(entry.file, entry.count) for entry in stale] == [("a.jsonl", 1), ("b/y.jsonl", 1)]
    assert baseline.entries_under(stale, [Path("b")], tmp_path) == stale[1:]
    assert baseline.entries_under(stale, [Path("a.jsonl")], tmp_path) == stale[:1]
    assert baseline.entries_under(stale, [Path("y")], tmp_path) == []
    assert baseline.entries_under(stale, [Path()], tmp_path) == stale


@pytest.mark.parametrize("change", [{"row_id": "x"}, {"pointer": "/x"}, {"message": "Else."}, {"code": "CK202"}])
def test_a_finding_with_other_content_is_new(tmp_path: Path, change: dict[str, str]) -> None:
    known = accepted(tmp_path / "known.json", report_of(1, [finding()]))
    other = finding().model_copy(update=change)
    assert baseline.compare_to_baseline(report_of(1, [other]), known, tmp_path).report.findings == [other]


def test_missing_and_damaged_baselines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    with pytest.raises(ConvkitError, match=r"does not exist\. Add --write_baseline"):
        baseline.read_baseline(path)
    path.write_text('{"baseline_version": 2, "findings": []}')
    with pytest.raises(
        ConvkitError, match=r"is damaged or of another version: baseline_version: .*Add --write_baseline"
    ):
        baseline.read_baseline(path)
    with pytest.raises(ConvkitError, match="cannot be written"):
        baseline.write_baseline(tmp_path / "no" / "known.json", report_of(1, []))

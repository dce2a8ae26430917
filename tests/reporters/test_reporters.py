"""The text and JSON reporters, and the lookup of reporters by name."""

import json
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

from convkit.errors import ConvkitError
from convkit.findings import Finding, Report, Severity, Summary
from convkit.reporters import REPORTERS, get_reporter
from scripts.generate import SCHEMAS
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import copy_of, report_of


def report(*findings: Finding, rows: int = 1) -> Report:
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    return Report(summary=Summary(rows=rows, errors=errors, warnings=len(findings) - errors), findings=list(findings))


def finding(file: str = "a.jsonl", line: int | None = 1, code: str = "CK201", pointer: str | None = None) -> Finding:
    severity = Severity.WARNING if code == "CK303" else Severity.ERROR
    return Finding(
        code=code,
        slug=f"slug-{code[2:]}",
        severity=severity,
        file=file,
        line=line,
        pointer=pointer,
        message="It is bad.",
        hint=f"Fix {code}.",
    )


def test_text_lists_findings_hints_counts_and_totals() -> None:
    text = get_reporter("text")(
        report(
            finding(pointer="/id"),
            finding(line=2),
            finding("b.jsonl", code="CK202"),
            finding("images/a", None, "CK303"),
            finding("images/b", None, "CK303"),
            rows=12345,
        )
    )
    assert text == (
        "a.jsonl:1: CK201 slug-201: It is bad. (/id)\n"
        "a.jsonl:2: CK201 slug-201: It is bad.\n"
        "\n"
        "b.jsonl:1: CK202 slug-202: It is bad.\n"
        "\n"
        "images/a: warning: CK303 slug-303: It is bad.\n"
        "images/b: warning: CK303 slug-303: It is bad.\n"
        "\n"
        "CK201 slug-201: Fix CK201.\n"
        "CK303 slug-303: Fix CK303.\n"
        "CK202 slug-202: Fix CK202.\n"
        "\n"
        "rule            findings\n"
        "--------------  --------\n"
        "CK201 slug-201         2\n"
        "CK303 slug-303         2\n"
        "CK202 slug-202         1\n"
        "\n"
        "Checked 12,345 rows. Found 3 errors, 2 warnings.\n"
    )


def test_text_without_findings_is_the_totals() -> None:
    assert get_reporter("text")(report()) == "Checked 1 row. Found 0 errors, 0 warnings.\n"


def test_text_marks_and_counts_fixable_findings() -> None:
    fixable = finding(line=2, code="CK004").model_copy(update={"fixable": True})
    text = get_reporter("text")(report(finding(), fixable))
    assert "a.jsonl:1: CK201 slug-201: It is bad.\na.jsonl:2: CK004 slug-004 [*]: It is bad.\n" in text
    assert text.endswith("\n\nChecked 1 row. Found 2 errors, 0 warnings. 1 fixable with --fix.\n")


def test_text_shows_the_first_fifty_findings_of_a_rule() -> None:
    findings = [finding(line=line) for line in range(1, 1201)] + [finding(line=1201, code="CK101")]
    lines = get_reporter("text")(report(*findings)).splitlines()
    assert sum(line.startswith("a.jsonl:") for line in lines) == 51
    assert "... and 1,150 more of CK201" in lines
    assert not any("more of CK101" in line for line in lines)


def test_text_for_a_terminal_has_the_same_content_in_colour() -> None:
    found = report(finding("a\x1b[31m.jsonl", pointer="/id"), finding(code="CK303"))
    plain, coloured = get_reporter("text")(found), get_reporter("text", terminal=True)(found)
    assert "\x1b" not in plain
    assert "\x1b[31m" in coloured and click.unstyle(coloured) == plain
    assert get_reporter("json", terminal=True)(found) == get_reporter("json")(found)


def test_text_escapes_control_characters() -> None:
    text = get_reporter("text")(report(finding("a\x1b[31m\n.jsonl", pointer="/\u202eé\x07")))
    assert r"a\x1b[31m\n.jsonl:1: CK201" in text
    assert r"(/\u202eé\x07)" in text


@pytest.mark.parametrize("name", sorted(str(path.relative_to(DIRECTORY)) for path in DIRECTORY.glob("*/*")))
def test_json_matches_its_schema(name: str, tmp_path: Path) -> None:
    found = report_of(copy_of(name, tmp_path))
    text = get_reporter("json")(found)
    schema = json.loads((SCHEMAS / "report.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(json.loads(text))
    assert Report.model_validate_json(text) == found
    assert text.startswith('{\n  "report_version": 1,') and text.endswith("}\n")


def test_every_reporter_can_be_loaded_and_an_unknown_name_lists_them() -> None:
    for name in REPORTERS:
        assert get_reporter(name)(report(finding())).endswith("\n")
    with pytest.raises(ConvkitError, match=r"no report format 'xml'\. Choose one of: text, json"):
        get_reporter("xml")

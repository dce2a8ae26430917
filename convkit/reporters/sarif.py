"""Render a report as SARIF 2.1.0, which code scanning services and editors read."""

import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from convkit import __version__
from convkit.findings import Finding, Report
from convkit.reporters.formatting import full_message
from convkit.rules.base import Rule
from convkit.rules.registry import all_rules

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "convkit/v1"


def render(report: Report) -> str:
    """Render one run with all rules and all findings as indented JSON that ends with a newline."""
    rules = all_rules()
    driver = {"name": "convkit", "version": __version__, "rules": [_rule(rule) for rule in rules.values()]}
    indices = {code: index for index, code in enumerate(rules)}
    seen: Counter[tuple[str, str]] = Counter()
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, indices[finding.code], seen) for finding in report.findings],
        "properties": report.summary.model_dump(),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.slug.split("-")),
        "shortDescription": {"text": _message(f"Checks for {rule.summary}.")},
        "fullDescription": {"text": _message(rule.why)},
        "help": {
            "text": _message(f"{rule.why} {rule.fix}"),
            "markdown": f"{rule.why}\n\n**How to fix:** {rule.fix}",
        },
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(finding: Finding, rule_index: int, seen: Counter[tuple[str, str]]) -> dict[str, Any]:
    content = finding.content()
    seen[finding.file, content] += 1
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": _artifact(finding.file)}}
    if finding.line:
        location["physicalLocation"]["region"] = {"startLine": finding.line}
    if finding.row_id is not None or finding.pointer:
        location["logicalLocations"] = [_logical(finding)]
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": finding.severity.value,
        "message": {"text": _message(full_message(finding))},
        "locations": [location],
        "occurrenceCount": finding.count,
        # The counter distinguishes equal findings of a file.
        "partialFingerprints": {FINGERPRINT: f"{content}:{seen[finding.file, content]}"},
    }


def _artifact(file: str) -> dict[str, str]:
    """Return a file's URI; relative paths refer to the folder that convkit ran in, usually the repository root."""
    if PurePosixPath(file).is_absolute():
        return {"uri": "file://" + quote(file)}
    return {"uri": quote(file), "uriBaseId": "%SRCROOT%"}


def _logical(finding: Finding) -> dict[str, str]:
    parts = {"name": finding.row_id, "fullyQualifiedName": finding.pointer}
    return {**{key: value for key, value in parts.items() if value is not None}, "kind": "element"}


def _message(text: str) -> str:
    """Escape a SARIF message: braces are placeholders, and `[text](target)` is a link."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "\\](")

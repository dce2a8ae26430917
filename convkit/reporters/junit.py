"""Render a report as JUnit XML for CI servers: one test suite per file, one test case per finding."""

from itertools import groupby
from xml.etree import ElementTree

from convkit.findings import Finding, Report, Severity
from convkit.reporters.formatting import full_message, location, rule_name, totals


def render(report: Report) -> str:
    """Render the XML document; a clean report has one passing case, because CI servers reject a file without cases."""
    summary = report.summary
    cases = len(report.findings) or 1
    root = ElementTree.Element("testsuites", _counts("convkit", cases, summary.errors))
    # Findings are sorted by file. Files without lines, such as images, share one suite.
    for file, group in groupby(report.findings, lambda finding: finding.file if finding.line else "files"):
        findings = list(group)
        failures = sum(finding.severity is Severity.ERROR for finding in findings)
        suite = ElementTree.SubElement(root, "testsuite", _counts(_legal(file), len(findings), failures))
        for finding in findings:
            _case(suite, finding)
    if not report.findings:
        suite = ElementTree.SubElement(root, "testsuite", _counts("convkit", 1, 0))
        ElementTree.SubElement(suite, "testcase", {"name": totals(report), "classname": "convkit"})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _counts(suite: str, tests: int, failures: int) -> dict[str, str]:
    return {"name": suite, "tests": str(tests), "failures": str(failures), "errors": "0"}


def _case(suite: ElementTree.Element, finding: Finding) -> None:
    attributes = {"name": _legal(f"{rule_name(finding)} {location(finding)}"), "classname": _legal(finding.file)}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    text = _legal(f"{location(finding)}: {full_message(finding)}\n{finding.hint}")
    if finding.severity is Severity.ERROR:
        failure = ElementTree.SubElement(case, "failure", {"message": _legal(finding.message), "type": finding.code})
        failure.text = text
    else:  # JUnit has no warnings: the case passes and prints the finding
        ElementTree.SubElement(case, "system-out").text = f"warning: {text}"


def _legal(text: str) -> str:
    """Escape characters that XML 1.0 forbids, and carriage returns, which parsers normalise."""
    return "".join(c if _is_legal(c) else c.encode("unicode_escape").decode() for c in text)


def _is_legal(c: str) -> bool:
    return c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"

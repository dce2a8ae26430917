"""JUnit XML, which CI servers show as test results: a suite for each file, a case for each finding."""

from itertools import groupby
from xml.etree import ElementTree

from convkit.findings import Finding, Report, Severity
from convkit.reporters.words import name, place, statement, totals


def render(report: Report) -> str:
    """The document. A clean report has one case that passes, as servers take a file without any for a fault."""
    summary = report.summary
    cases = len(report.findings) or 1
    root = ElementTree.Element("testsuites", _counts("convkit", cases, summary.errors))
    # Findings of one file stand together, and files that have no lines, such as images, are one suite.
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
    attributes = {"name": _legal(f"{name(finding)} {place(finding)}"), "classname": _legal(finding.file)}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    text = _legal(f"{place(finding)}: {statement(finding)}\n{finding.hint}")
    if finding.severity is Severity.ERROR:
        failure = ElementTree.SubElement(case, "failure", {"message": _legal(finding.message), "type": finding.code})
        failure.text = text
    else:  # JUnit knows no warnings: the case passes and says something
        ElementTree.SubElement(case, "system-out").text = f"warning: {text}"


def _legal(text: str) -> str:
    """Escape the characters that XML 1.0 cannot hold in any form, and carriage returns, which parsers change."""
    return "".join(c if _is_legal(c) else c.encode("unicode_escape").decode() for c in text)


def _is_legal(c: str) -> bool:
    return c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"

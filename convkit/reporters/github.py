"""Render a report as GitHub Actions workflow commands, which annotate the lines of the files."""

from convkit.findings import Finding, Report
from convkit.reporters.formatting import full_message, rule_name, totals

_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = {**_DATA, ord(":"): "%3A", ord(","): "%2C"}


def render(report: Report) -> str:
    """Render one command per finding, then the totals."""
    return "".join(f"{_command(finding)}\n" for finding in report.findings) + totals(report) + "\n"


def _command(finding: Finding) -> str:
    properties = {"file": finding.file, "line": finding.line, "title": rule_name(finding)}
    attributes = ",".join(
        f"{key}={str(value).translate(_PROPERTY)}" for key, value in properties.items() if value is not None
    )
    message = f"{full_message(finding)}. {finding.hint}"
    return f"::{finding.severity} {attributes}::{message.translate(_DATA)}"

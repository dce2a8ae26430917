"""Workflow commands, which GitHub Actions shows as annotations at the lines of the files."""

from convkit.findings import Finding, Report
from convkit.reporters.words import name, statement, totals

_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = {**_DATA, ord(":"): "%3A", ord(","): "%2C"}


def render(report: Report) -> str:
    """One command a finding, then the totals for whoever reads the log."""
    return "".join(f"{_command(finding)}\n" for finding in report.findings) + totals(report) + "\n"


def _command(finding: Finding) -> str:
    properties = {"file": finding.file, "line": finding.line, "title": name(finding)}
    described = ",".join(
        f"{key}={str(value).translate(_PROPERTY)}" for key, value in properties.items() if value is not None
    )
    message = f"{statement(finding)}. {finding.hint}"
    return f"::{finding.severity} {described}::{message.translate(_DATA)}"

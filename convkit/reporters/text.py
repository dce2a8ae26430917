"""The report as plain text, for people: findings by file, then each rule's remedy once."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from convkit.findings import Finding, Report

MAX_PER_RULE = 50
"""Findings shown of each rule: nobody reads the ten-thousandth missing image."""


def render(report: Report) -> str:
    """The text, with a line end."""
    return "".join(printable(line) + "\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    # What is said of whole files, such as a thousand images that no row names, stands together.
    for _, findings in groupby(_first_of_each_rule(report), lambda finding: finding.line and finding.file):
        yield from map(_line, findings)
        yield ""
    totals = Counter(finding.code for finding in report.findings)
    hidden = {code: total - MAX_PER_RULE for code, total in sorted(totals.items()) if total > MAX_PER_RULE}
    for code, count in hidden.items():
        yield f"... and {count:,} more of {code}"
    if hidden:
        yield ""
    hints = {finding.code: f"{finding.code} {finding.slug}: {finding.hint}" for finding in report.findings}
    for code in sorted(hints):
        yield hints[code]
    if hints:
        yield ""
    summary = report.summary
    yield (f"{_count(summary.rows, 'row')}, {_count(summary.errors, 'error')}, {_count(summary.warnings, 'warning')}")


def _first_of_each_rule(report: Report) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for finding in report.findings:
        seen[finding.code] += 1
        if seen[finding.code] <= MAX_PER_RULE:
            yield finding


def _line(finding: Finding) -> str:
    place = f"{finding.file}:{finding.line}" if finding.line else finding.file
    pointer = f" ({finding.pointer})" if finding.pointer else ""
    severity = "" if finding.severity == "error" else f"{finding.severity}: "
    return f"{place}: {severity}{finding.code} {finding.slug}: {finding.message}{pointer}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def printable(line: str) -> str:
    """Keep control characters, which keys and file names of a data set may hold, away from the terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)

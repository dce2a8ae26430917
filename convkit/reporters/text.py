"""Render a report as plain text: findings by file, then each rule's hint and count, then the totals."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

import typer

from convkit.findings import Finding, Report
from convkit.reporters.formatting import by_rule, first_of_each_rule, full_message, location, rule_name, totals
from convkit.reporters.table import table
from convkit.utils.text import printable

MAX_PER_RULE = 50
"""Maximum number of findings shown per rule; the rest is counted."""

Style = Callable[[str, str], str]
"""Styles a text for its role: location, error, warning or ok."""

_STYLES = {
    "location": partial(typer.style, bold=True),
    "error": partial(typer.style, fg="red", bold=True),
    "warning": partial(typer.style, fg="yellow", bold=True),
    "ok": partial(typer.style, fg="green", bold=True),
}


def render(report: Report) -> str:
    """Render the report as text that ends with a newline."""
    return _render(report, lambda text, _role: text)


def render_coloured(report: Report) -> str:
    """Render the report with colours for a terminal."""
    return _render(report, lambda text, role: _STYLES[role](text))


def _render(report: Report, style: Style) -> str:
    return "".join(line + "\n" for line in _lines(report, style))


def _lines(report: Report, style: Style) -> Iterator[str]:
    # Findings about whole files, such as a thousand unused images, form one group.
    shown = first_of_each_rule(report, MAX_PER_RULE)
    for _, findings in groupby(shown, lambda finding: finding.line and finding.file):
        for finding in findings:
            yield _line(finding, style)
        yield ""
    rules = by_rule(report)
    hidden = [(finding, count - MAX_PER_RULE) for finding, count in rules if count > MAX_PER_RULE]
    for finding, count in hidden:
        yield f"... and {count:,} more of {finding.code}"
    if hidden:
        yield ""
    for finding, _ in rules:
        yield f"{style(rule_name(finding), finding.severity)}: {printable(finding.hint)}"
    if rules:
        yield ""
        yield table(["rule", "findings"], [(rule_name(finding), f"{count:,}") for finding, count in rules])
        yield ""
    yield style(totals(report), _worst(report))


def _line(finding: Finding, style: Style) -> str:
    severity = "" if finding.severity == "error" else f"{finding.severity}: "
    fixable = " [*]" if finding.fixable else ""
    where = style(printable(location(finding)), "location")
    return (
        f"{where}: {severity}{style(rule_name(finding), finding.severity)}{fixable}: {printable(full_message(finding))}"
    )


def _worst(report: Report) -> str:
    return "error" if report.summary.errors else "warning" if report.summary.warnings else "ok"

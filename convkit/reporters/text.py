"""The report as plain text, for people: findings by file, each rule's remedy once, and what there is most of."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

import typer

from convkit.findings import Finding, Report
from convkit.reporters.table import table
from convkit.reporters.words import by_rule, first_of_each_rule, name, place, printable, statement, totals

MAX_PER_RULE = 50
"""Findings shown of each rule: nobody reads the ten-thousandth missing image."""

Style = Callable[[str, str], str]
"""Makes text look like what it is: place, error, warning or ok."""

_STYLES = {
    "place": partial(typer.style, bold=True),
    "error": partial(typer.style, fg="red", bold=True),
    "warning": partial(typer.style, fg="yellow", bold=True),
    "ok": partial(typer.style, fg="green", bold=True),
}


def render(report: Report) -> str:
    """The text, with a line end."""
    return _render(report, lambda text, _kind: text)


def render_coloured(report: Report) -> str:
    """The text for a terminal."""
    return _render(report, lambda text, kind: _STYLES[kind](text))


def _render(report: Report, style: Style) -> str:
    return "".join(line + "\n" for line in _lines(report, style))


def _lines(report: Report, style: Style) -> Iterator[str]:
    # What is said of whole files, such as a thousand images that no row names, stands together.
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
        yield f"{style(name(finding), finding.severity)}: {printable(finding.hint)}"
    if rules:
        yield ""
        yield table(["rule", "findings"], [(name(finding), f"{count:,}") for finding, count in rules])
        yield ""
    yield style(totals(report), _worst(report))


def _line(finding: Finding, style: Style) -> str:
    severity = "" if finding.severity == "error" else f"{finding.severity}: "
    where = style(printable(place(finding)), "place")
    return f"{where}: {severity}{style(name(finding), finding.severity)}: {printable(statement(finding))}"


def _worst(report: Report) -> str:
    return "error" if report.summary.errors else "warning" if report.summary.warnings else "ok"

"""A summary in Markdown, for the page of a CI job or a comment: what there is most of, and where it begins."""

import re
from collections.abc import Iterator

from convkit.findings import Report
from convkit.reporters.words import by_rule, first_of_each_rule, markdown, name, place, printable, statement, totals

MAX_PER_RULE = 10
"""Findings shown of each rule."""

_TICKS = re.compile("`+")


def render(report: Report) -> str:
    """The text, with a line end."""
    return "".join(line + "\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield "## convkit validate"
    yield ""
    yield f"**{totals(report)}**"
    rules = by_rule(report)
    if not rules:
        return
    yield ""
    yield "| rule | severity | findings |"
    yield "| --- | --- | ---: |"
    for finding, count in rules:
        yield f"| {name(finding)} | {finding.severity} | {count:,} |"
    shown = list(first_of_each_rule(report, MAX_PER_RULE))
    for rule, count in rules:
        yield ""
        yield f"### {name(rule)}"
        yield ""
        yield f"How to mend it: {markdown(printable(rule.hint))}"
        yield ""
        for finding in shown:
            if finding.code == rule.code:
                yield f"- {_code(place(finding))} {_code(statement(finding))}"
        if count > MAX_PER_RULE:
            yield f"- and {count - MAX_PER_RULE:,} more"


def _code(text: str) -> str:
    """A code span, the one place where no text of a data set is markup, HTML, a link or a mention."""
    text = printable(text)
    ticks = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{ticks} {text} {ticks}"

"""Render a report as a Markdown summary for a CI job page or a pull request comment."""

import re
from collections.abc import Iterator

from convkit.findings import Report
from convkit.reporters.formatting import (
    by_rule,
    first_of_each_rule,
    full_message,
    location,
    markdown,
    rule_name,
    totals,
)
from convkit.utils.text import printable

MAX_PER_RULE = 10
"""Maximum number of findings listed per rule."""

_TICKS = re.compile("`+")


def render(report: Report) -> str:
    """Render the summary as text that ends with a newline."""
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
        yield f"| {rule_name(finding)} | {finding.severity} | {count:,} |"
    shown = list(first_of_each_rule(report, MAX_PER_RULE))
    for rule, count in rules:
        yield ""
        yield f"### {rule_name(rule)}"
        yield ""
        yield f"How to fix: {markdown(printable(rule.hint))}"
        yield ""
        for finding in shown:
            if finding.code == rule.code:
                yield f"- {_code(location(finding))} {_code(full_message(finding))}"
        if count > MAX_PER_RULE:
            yield f"- and {count - MAX_PER_RULE:,} more"


def _code(text: str) -> str:
    """Wrap text in a code span, so that dataset content cannot become markup, HTML, a link or a mention."""
    text = printable(text)
    ticks = "`" * (1 + max(map(len, _TICKS.findall(text)), default=0))
    return f"{ticks} {text} {ticks}"

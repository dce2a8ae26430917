"""What reporters share: how a finding is put into words, and how what a data set holds is kept from doing harm."""

import re
from collections import Counter
from collections.abc import Iterator

from convkit.findings import Finding, Report, by_code


def printable(text: str) -> str:
    """Escape control characters, which keys and file names of a data set may hold; the text becomes one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def markdown(text: str) -> str:
    """Plain words as Markdown: `<image>` is no tag, and nothing becomes slanted."""
    return re.sub(r"([\\<*_`\[|])", r"\\\1", text)


def place(finding: Finding) -> str:
    """`file:line`, or the file alone."""
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def name(finding: Finding) -> str:
    """`CK201 missing-image`."""
    return f"{finding.code} {finding.slug}"


def statement(finding: Finding) -> str:
    """The message, and where in the row."""
    return f"{finding.message} ({finding.pointer})" if finding.pointer else finding.message


def counted(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def totals(report: Report) -> str:
    """`3 rows, 0 errors, 1 warning`."""
    summary = report.summary
    return ", ".join(
        (counted(summary.rows, "row"), counted(summary.errors, "error"), counted(summary.warnings, "warning"))
    )


def by_rule(report: Report) -> list[tuple[Finding, int]]:
    """The first finding of each rule and how many there are, the most frequent first."""
    counts = by_code(report.findings)
    first = {finding.code: finding for finding in reversed(report.findings)}
    return [(first[code], count) for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def first_of_each_rule(report: Report, limit: int) -> Iterator[Finding]:
    """The first findings of each rule, in the order of the report."""
    seen: Counter[str] = Counter()
    for finding in report.findings:
        seen[finding.code] += 1
        if seen[finding.code] <= limit:
            yield finding

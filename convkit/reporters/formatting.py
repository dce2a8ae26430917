"""Text helpers that all reporters share: wording of a finding, escaping of text from a dataset."""

import re
from collections import Counter
from collections.abc import Iterator

from convkit.findings import Finding, Report, by_code
from convkit.utils.text import pluralize

_CODE_SPAN = re.compile(r"((?<!`)`[^`\s](?:[^`]*[^`\s])?`(?!`))")
_MARKUP = re.compile(r"([\\<*_`\[|])")


def markdown(text: str) -> str:
    """Escape Markdown markup in plain text, but keep code spans in single backticks as they are."""
    parts = _CODE_SPAN.split(text)
    return "".join(part if index % 2 else _MARKUP.sub(r"\\\1", part) for index, part in enumerate(parts))


def location(finding: Finding) -> str:
    """Return `file:line`, or the file alone."""
    return f"{finding.file}:{finding.line}" if finding.line else finding.file


def rule_name(finding: Finding) -> str:
    """Return code and slug, such as `CK201 missing-image`."""
    return f"{finding.code} {finding.slug}"


def full_message(finding: Finding) -> str:
    """Return the message, followed by the JSON pointer if there is one."""
    return f"{finding.message} ({finding.pointer})" if finding.pointer else finding.message


def totals(report: Report) -> str:
    """Return `Checked 3 rows. Found 1 error, 0 warnings. 1 fixable with --fix.`; the last sentence only if true."""
    summary = report.summary
    checked = f"Checked {pluralize(summary.rows, 'row')}."
    found = f"Found {pluralize(summary.errors, 'error')}, {pluralize(summary.warnings, 'warning')}."
    fixable = sum([finding.count for finding in report.findings if finding.fixable])
    return " ".join((checked, found, *([f"{fixable:,} fixable with --fix."] if fixable else [])))


def by_rule(report: Report) -> list[tuple[Finding, int]]:
    """Return the first finding of each rule and the rule's number of findings, most frequent first."""
    counts = by_code(report.findings)
    first = {finding.code: finding for finding in reversed(report.findings)}
    return [(first[code], count) for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def first_of_each_rule(report: Report, limit: int) -> Iterator[Finding]:
    """Yield the first findings of each rule, in report order."""
    seen: Counter[str] = Counter()
    for finding in report.findings:
        seen[finding.code] += 1
        if seen[finding.code] <= limit:
            yield finding

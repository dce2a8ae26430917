"""Render a report as JSON Lines: each line is a `Finding` of the report schema."""

from convkit.findings import Report


def render(report: Report) -> str:
    """Render one line per finding; an empty string if there are none."""
    return "".join(finding.model_dump_json() + "\n" for finding in report.findings)

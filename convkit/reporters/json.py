"""Render a report as one JSON document; `convkit schema report` prints its schema."""

from convkit.findings import Report


def render(report: Report) -> str:
    """Render the report as indented JSON that ends with a newline."""
    return report.model_dump_json(indent=2) + "\n"

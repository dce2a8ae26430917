"""The report as JSON, for programs: the format is schemas/report.json."""

from convkit.findings import Report


def render(report: Report) -> str:
    """All findings, indented, with a line end."""
    return report.model_dump_json(indent=2) + "\n"

"""One finding a line as JSON, for programs that read a stream: each is a Finding of schemas/report.json."""

from convkit.findings import Report


def render(report: Report) -> str:
    """The lines; nothing where there is no finding."""
    return "".join(finding.model_dump_json() + "\n" for finding in report.findings)

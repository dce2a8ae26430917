"""The baseline file: findings that a project accepts, so that validation fails on new findings only.

A finding is identified by its content (rule, file, row id, pointer, message), not by its line. Equal findings are
counted: a third one is new if two are accepted. Accepted errors still prevent a validation receipt.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from convkit.errors import ConvkitError
from convkit.findings import Finding, Report, report_of
from convkit.utils.json_file import read_model, write_model

_STRICT = ConfigDict(extra="forbid", frozen=True)


class BaselineEntry(BaseModel):
    """Equal findings. Redundant keys make the diff of a baseline file readable."""

    model_config = _STRICT

    code: str
    file: str = Field(description="Relative to the folder of the baseline file.")
    row_id: str | None = None
    pointer: str | None = None
    content: str = Field(description="Digest of the finding's content.")
    count: int = Field(ge=1)


class Baseline(BaseModel):
    """The content of a baseline file."""

    model_config = _STRICT

    baseline_version: Literal[1] = 1
    findings: list[BaselineEntry]


class Compared(NamedTuple):
    """The result of comparing a report with a baseline."""

    report: Report
    """The new findings only."""
    accepted: int
    """The number of findings that the baseline lists."""
    stale: list[BaselineEntry]
    """Entries that were not found any more, with the number that is missing."""


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        ConvkitError: the file does not exist, or is not a baseline of this version.
    """
    return read_model(path, Baseline, "Add --write_baseline to write the baseline from the current findings.")


def write_baseline(path: Path, report: Report) -> None:
    """Write a baseline file that accepts all findings of a report.

    Raises:
        ConvkitError: the file cannot be written.
    """
    try:
        write_model(path, Baseline(findings=_entries(report.findings, path.parent)), exclude_none=True)
    except OSError as error:
        raise ConvkitError(f"{path} cannot be written ({error.strerror}). Pass another file.") from None


def compare_to_baseline(report: Report, baseline: Baseline, root: Path) -> Compared:
    """Remove the accepted findings from a report; of equal findings the first ones are removed.

    Args:
        root: the folder that the baseline's file names are relative to.
    """
    remaining = Counter({_key(entry): entry.count for entry in baseline.findings})
    new = []
    for finding in report.findings:
        key = _key(_entry(finding, root, 1))
        if remaining[key] > 0:
            remaining[key] -= 1
        else:
            new.append(finding)
    stale = [
        entry.model_copy(update={"count": remaining[_key(entry)]})
        for entry in baseline.findings
        if remaining[_key(entry)] > 0
    ]
    return Compared(report_of(report.summary.rows, new), len(report.findings) - len(new), stale)


def entries_under(entries: Iterable[BaselineEntry], paths: Sequence[Path], root: Path) -> list[BaselineEntry]:
    """Return the entries about the given files and directories."""
    folders = [_relative(path, root) for path in paths]
    return [entry for entry in entries if any(_is_under(entry.file, folder) for folder in folders)]


def _is_under(file: str, path: str) -> bool:
    return (path == "." and not file.startswith("../")) or file == path or file.startswith(f"{path}/")


def _entries(findings: Iterable[Finding], root: Path) -> list[BaselineEntry]:
    counts = Counter(_entry(finding, root, 1) for finding in findings)
    return [entry.model_copy(update={"count": count}) for entry, count in counts.items()]


def _entry(finding: Finding, root: Path, count: int) -> BaselineEntry:
    return BaselineEntry(
        code=finding.code,
        file=_relative(finding.file, root),
        row_id=finding.row_id,
        pointer=finding.pointer,
        content=finding.content(),
        count=count,
    )


def _key(entry: BaselineEntry) -> tuple[str, str, str]:
    return entry.code, entry.file, entry.content


def _relative(file: str | Path, root: Path) -> str:
    return os.path.relpath(file, root).replace(os.sep, "/")

"""The baseline: findings of a day that are accepted, so that a data set with a history fails on new ones only.

A finding is known again by its content (rule, file, row id, pointer, message), not by its line. Equal ones are
counted: a third where two are accepted is new. Accepted errors are still errors to the receipt.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convkit.errors import ConvkitError
from convkit.findings import Finding, Report, report_of
from convkit.utils.files import write_atomic

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Entry(BaseModel):
    """Equal findings. What is for people and what is for comparing stand together, so that a diff can be read."""

    model_config = _STRICT

    code: str
    file: str = Field(description="Relative to the folder of the baseline file.")
    row_id: str | None = None
    pointer: str | None = None
    content: str = Field(description="Digest of what is wrong.")
    count: int = Field(ge=1)


class Baseline(BaseModel):
    """The file."""

    model_config = _STRICT

    baseline_version: Literal[1] = 1
    findings: list[Entry]


class Compared(NamedTuple):
    """A report against a baseline."""

    report: Report
    """With what is new alone."""
    accepted: int
    """Findings that the baseline has."""
    stale: list[Entry]
    """What the baseline has and the report has not, with the count that is missing."""


def read(path: Path) -> Baseline:
    """A baseline file.

    Raises:
        ConvkitError: there is none, or it is not a baseline of this version.
    """
    try:
        return Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConvkitError(f"There is no baseline {path}. Add --write_baseline to make it.") from None
    except OSError as error:
        raise ConvkitError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None
    except ValidationError:
        raise ConvkitError(f"{path} is not a baseline of this version. Add --write_baseline to make it anew.") from None


def write(path: Path, report: Report) -> None:
    """Accept all findings of a report.

    Raises:
        ConvkitError: the file cannot be written.
    """
    content = Baseline(findings=_entries(report.findings, path.parent)).model_dump_json(indent=2, exclude_none=True)
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            write_atomic(path, content.encode() + b"\n", Path(scratch))
    except OSError as error:
        raise ConvkitError(f"{path} cannot be written ({error.strerror}). Give another file.") from None


def compare(report: Report, baseline: Baseline, root: Path) -> Compared:
    """Take the accepted findings out of a report; of equal ones the first in its order.

    Args:
        root: the folder that the baseline's file names are relative to.
    """
    left = Counter({_key(entry): entry.count for entry in baseline.findings})
    new = []
    for finding in report.findings:
        key = _key(_entry(finding, root, 1))
        if left[key] > 0:
            left[key] -= 1
        else:
            new.append(finding)
    stale = [
        entry.model_copy(update={"count": left[_key(entry)]}) for entry in baseline.findings if left[_key(entry)] > 0
    ]
    return Compared(report_of(report.summary.rows, new), len(report.findings) - len(new), stale)


def among(entries: Iterable[Entry], paths: Sequence[Path], root: Path) -> list[Entry]:
    """The entries about files that were validated: nothing is known of the others."""
    places = [_relative(path, root) for path in paths]
    return [entry for entry in entries if any(_within(entry.file, place) for place in places)]


def _within(file: str, place: str) -> bool:
    return (place == "." and not file.startswith("../")) or file == place or file.startswith(f"{place}/")


def _entries(findings: Iterable[Finding], root: Path) -> list[Entry]:
    counts = Counter(_entry(finding, root, 1) for finding in findings)
    return [entry.model_copy(update={"count": count}) for entry, count in counts.items()]


def _entry(finding: Finding, root: Path, count: int) -> Entry:
    return Entry(
        code=finding.code,
        file=_relative(finding.file, root),
        row_id=finding.row_id,
        pointer=finding.pointer,
        content=finding.content(),
        count=count,
    )


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.code, entry.file, entry.content


def _relative(file: str | Path, root: Path) -> str:
    return os.path.relpath(file, root).replace(os.sep, "/")

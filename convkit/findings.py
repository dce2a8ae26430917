"""The findings of a validation: rules yield findings, a report collects them, and a reporter renders them."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from convkit.schema import SCHEMA_ID

# A message may name a line, or a file with a line; neither is part of what is wrong.
_PLACES = re.compile(r"\bline \d+|\S+:\d+")


class Severity(StrEnum):
    """The severity of a finding: errors prevent training on a dataset, warnings do not."""

    ERROR = "error"
    WARNING = "warning"


class Finding(BaseModel):
    """One violation of a rule, with its location."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = Field(pattern=r"^[A-Z]{2,}\d{3}$", description="The rule's stable code, such as CK201.")
    slug: str = Field(description="The rule's readable name, such as missing-image.")
    severity: Severity = Field(description="error or warning.")
    file: str = Field(description="The file, by the path that was passed or found.")
    line: int | None = Field(default=None, ge=1, description="The line number, from 1. Null: the whole file.")
    row_id: str | None = Field(default=None, description="The row's id, if it could be read.")
    pointer: str | None = Field(
        default=None,
        description="JSON pointer (RFC 6901) into the row, such as /conversations/0/images/2, or into the manifest.",
    )
    message: str = Field(description="The problem, in one sentence.")
    hint: str = Field(description="How to fix it.")
    count: int = Field(
        default=1,
        ge=1,
        description="Number of findings that this one stands for: above 1 if a rule has too many to list.",
    )
    fixable: bool = Field(default=False, description="`convkit validate --fix` can fix it.")

    def content(self) -> str:
        """Return a digest of the problem without its location: it does not change when rows or files move."""
        parts = [self.code, self.row_id or "", self.pointer or "", _PLACES.sub("", self.message)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Summary(BaseModel):
    """The totals of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(ge=0, description="Rows that were read, valid or not.")
    errors: int = Field(ge=0, description="Findings of severity error, listed or not.")
    warnings: int = Field(ge=0, description="Findings of severity warning, listed or not.")


class Report(BaseModel):
    """The result of `convkit validate --format json`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        title="convkit validation report",
        json_schema_extra={"$id": f"{SCHEMA_ID}:report"},
    )

    report_version: Literal[1] = Field(default=1, description="The version of this format.")
    summary: Summary
    findings: list[Finding] = Field(description="Findings in the order of files and lines; see their `count`.")


def report_of(rows: int, findings: Sequence[Finding]) -> Report:
    """Return the report of findings, with their totals."""
    errors = by_code(finding for finding in findings if finding.severity is Severity.ERROR).total()
    summary = Summary(rows=rows, errors=errors, warnings=by_code(findings).total() - errors)
    return Report(summary=summary, findings=list(findings))


def by_code(findings: Iterable[Finding]) -> Counter[str]:
    """Return the number of findings per rule, including those that are not listed."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.code] += finding.count
    return counts

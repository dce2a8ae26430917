"""What a rule found, as data: validators yield findings, a report collects them, a reporter prints them."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from convkit.schema import SCHEMA_ID

# A message may name a line, or a file and its line, neither of which says what is wrong.
_PLACES = re.compile(r"\bline \d+|\S+:\d+")


class Severity(StrEnum):
    """How bad a finding is: errors keep a data set from being trained on, warnings do not."""

    ERROR = "error"
    WARNING = "warning"


class Finding(BaseModel):
    """One result of a rule, with the address of what it is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = Field(pattern=r"^CK\d{3}$", description="The rule's stable code, such as CK201.")
    slug: str = Field(description="The rule's readable name, such as missing-image.")
    severity: Severity = Field(description="error or warning.")
    file: str = Field(description="The file that was read, as it was named or found.")
    line: int | None = Field(default=None, ge=1, description="The line in the file, from 1; null: the whole file.")
    row_id: str | None = Field(default=None, description="The row's id, where it could be read.")
    pointer: str | None = Field(
        default=None,
        description="JSON pointer (RFC 6901) into the row, such as /conversations/0/images/2, or into the manifest.",
    )
    message: str = Field(description="What is wrong, in one sentence.")
    hint: str = Field(description="How to mend it.")
    count: int = Field(
        default=1,
        ge=1,
        description="How many findings this stands for: more than 1 where a rule has too many to list them all.",
    )
    fixable: bool = Field(default=False, description="`convkit validate --fix` can fix it.")

    def content(self) -> str:
        """A digest of what is wrong, without where: it stays when rows are put before this one, or files elsewhere."""
        parts = [self.code, self.row_id or "", self.pointer or "", _PLACES.sub("", self.message)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


class Summary(BaseModel):
    """The totals of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(ge=0, description="Rows read, sound or not.")
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
    """The report of findings, counted."""
    errors = by_code(finding for finding in findings if finding.severity is Severity.ERROR).total()
    summary = Summary(rows=rows, errors=errors, warnings=by_code(findings).total() - errors)
    return Report(summary=summary, findings=list(findings))


def by_code(findings: Iterable[Finding]) -> Counter[str]:
    """How many findings each rule has, those that are not listed included."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.code] += finding.count
    return counts

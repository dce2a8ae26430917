"""What a rule is, and what a check sees: the two things that the families are made of."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from convkit.findings import Finding, Severity
from convkit.schema import Conversation, Manifest


@dataclass(frozen=True)
class Rule:
    """One rule: everything that there is to say about it. Its page in the documentation is made from this."""

    code: str
    """Never changes and is never used again, so that people can build on it: CK, the family's digit, two digits."""
    slug: str
    severity: Severity
    summary: str
    """What the rule finds, in one sentence."""
    why: str
    """What goes wrong later where it is not mended."""
    fix: str
    """How to mend it; the hint of its findings."""


class Problem(NamedTuple):
    """What a rule found, before it is known where: the reader adds file, line and row."""

    rule: Rule
    message: str
    pointer: str | None = None


class Place(NamedTuple):
    """Where a problem is: in a file, on a line of it, in a row."""

    file: str
    line: int | None = None
    row_id: str | None = None

    def finding(self, problem: Problem) -> Finding:
        """Put the two together."""
        rule = problem.rule
        return Finding(
            code=rule.code,
            slug=rule.slug,
            severity=rule.severity,
            file=self.file,
            line=self.line,
            row_id=self.row_id,
            pointer=problem.pointer,
            message=problem.message,
            hint=rule.fix,
        )


def shown(path: Path) -> str:
    """A path as text for a report; bytes that are no UTF-8, which a report cannot hold, become escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


@dataclass
class RowFile:
    """A row file, and what was counted in it while it was read."""

    path: Path
    rows: int = 0
    bad_rows: int = 0
    """Of `rows`; they count for nothing below."""
    turns: int = 0
    images: int = 0
    sha256: str = ""
    missing: bool = False

    @property
    def name(self) -> str:
        """The path as findings show it."""
        return shown(self.path)


@dataclass
class Corpus:
    """The row files that make up one data set, together with what is known of them."""

    directory: Path
    files: list[RowFile]
    manifest: Manifest | None = None
    whole: bool = False
    """The directory was given, not files of it: what is missing or left over counts, too."""
    media: bool = True
    """The files in images/ are looked at."""
    mentioned: set[int] = field(default_factory=set)
    """Hashes of the image paths of all sound rows. Hashes, because a set of the paths of a large data set takes
    gigabytes; with 64 bits under a key of the process, even ten million paths collide once in 300,000 runs."""


class Check:
    """A rule (or a few that share their work) about sound rows: sees every one of a data set, then its end.

    One instance for each data set, so it may keep what it has seen. A family lists its checks in `CHECKS`.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def row(self, place: Place, row: Conversation) -> Iterable[Problem]:
        """The problems of one row; called once for each sound row, so it has a microsecond."""
        return ()

    def end(self) -> Iterator[Finding]:
        """What can be said only when all rows and all media were read."""
        yield from ()

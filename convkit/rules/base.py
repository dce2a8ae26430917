"""The types that rules are made of: `Rule`, `Problem`, and `Check` with the data it receives."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.schema import Manifest
from convkit.utils.digests import DigestSet, new_key

if TYPE_CHECKING:
    from convkit.media.images import ImageInfo
    from convkit.utils.digests import Digests


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
    """How to fix it; the hint of its findings."""
    instead: str = ""
    """A corrected version of the example line on the rule's page, where there is one."""
    fixable: bool = False
    """`convkit validate --fix` can fix its findings; see `convkit.validate.fix`."""

    def __reduce__(self) -> "tuple[Callable[[str], Rule], tuple[str]]":
        """Pickle the rule as its code: worker processes know all rules, and a problem stays small on its way."""
        return _rule_of, (self.code,)


def _rule_of(code: str) -> Rule:
    from convkit.rules.registry import RULES

    return RULES[code]


class Problem(NamedTuple):
    """A violation of a rule. `Location.finding` adds where it is."""

    rule: Rule
    message: str
    pointer: str | None = None


class Location(NamedTuple):
    """The file, line and row in which a problem is."""

    file: str
    line: int | None = None
    row_id: str | None = None

    def finding(self, problem: Problem) -> Finding:
        """Return the finding for a problem at this location."""
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
    label: str = ""
    """What findings call the file where that is not its path: standard input."""
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
        return self.label or shown(self.path)


@dataclass
class DatasetFiles:
    """The row files of one data set, its manifest, and what is collected while they are read."""

    directory: Path
    files: list[RowFile]
    manifest: Manifest | None = None
    """None if no dataset directory was given, or it has no manifest."""
    manifest_sha256: str = ""
    whole: bool = False
    """The directory was given, not files of it: what is missing or left over counts, too."""
    media: bool = True
    """The files in images/ are looked at."""
    key: int = field(default_factory=new_key)
    """Of all digests of the data set in this run."""
    image_digests: DigestSet = field(default_factory=DigestSet)
    """Digests of the image paths of all sound rows; empty where media are not looked at."""


class RowFacts(NamedTuple):
    """What is kept of the sound rows of a stretch of a row file: one number for each row, in the order of the file.

    Strings are digests under `DatasetFiles.key`; 0 stands for absent.
    """

    file: int
    """Index into `DatasetFiles.files`."""
    lines: "Digests"
    """Line numbers, from 1."""
    ids: "Digests"
    groups: "Digests"
    inputs: "Digests"
    """System prompt, image paths, and all that comes before the last answer."""
    answers: "Digests"
    """The last turn's assistant text."""
    accepted: "Digests"
    """All accepted answers of the last turn where its assistant text is one of them; else that text."""
    images: "Digests"
    """Paths that the stretch names, each once (so not one for each row); empty where media are not looked at."""


class ImageRef(NamedTuple):
    """The first reference to an image in a data set."""

    path: str
    """As rows spell it."""
    file: int
    """Index into `DatasetFiles.files`."""
    line: int
    row_id: str
    turn: int
    image: int
    """Index into the turn's images."""

    @property
    def pointer(self) -> str:
        """Leads to the path in the row."""
        return f"/conversations/{self.turn}/images/{self.image}"


class Check:
    """A rule (or a few that share their work) about a whole data set: sees all rows, all images, then the end.

    One instance for each data set, in the main process, so it may keep what it has seen: eight bytes a row, not more.
    A family lists its checks in `CHECKS`. Rules about the texts of one row are functions that run in workers: see
    `convkit.rules.texts`.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        self.dataset = dataset

    def rows(self, facts: RowFacts) -> None:
        """Take in a stretch of rows; stretches come in the order of files and lines."""

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """The problems of a sound image: what was seen of it is judged here, so that rules may change and caches stay.

        Each comes once, after all rows, in the order in which rows first name them.
        """
        return ()

    def end(self) -> Iterator[Finding]:
        """What can be said only when all rows and all media were read."""
        yield from ()

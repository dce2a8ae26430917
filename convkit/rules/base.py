"""The types that rules are made of: `Rule`, `Problem`, and `Check` with the data it receives."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from convkit.findings import Finding, Severity
from convkit.schema import Manifest
from convkit.utils.digests import DigestSet, new_key
from convkit.utils.files import display_path

if TYPE_CHECKING:
    from convkit.media.images import ImageInfo
    from convkit.utils.digests import Digests


@dataclass(frozen=True)
class Rule:
    """One rule with its documentation; `convkit.reporters.rule_page` renders its page."""

    code: str
    """CK, the digit of the family and two digits; rules of other packages have their own letters instead of CK. Never
    changed and never reused, because users refer to it."""
    slug: str
    severity: Severity
    summary: str
    """Noun phrase that completes "Checks for ..."."""
    why: str
    """Consequences of ignoring a finding."""
    fix: str
    """Instructions for a fix, which are also the hint of its findings."""
    instead: str = ""
    """A corrected row for the example on the rule's page, if one line can show it."""
    fixable: bool = False
    """`convkit validate --fix` can fix its findings; see `convkit.validate.fix`."""

    def __reduce__(self) -> "tuple[Callable[[str], Rule], tuple[str]]":
        """Pickle the rule as its code, which keeps problems small on the way from a worker."""
        return _rule_of, (self.code,)


def _rule_of(code: str) -> Rule:
    from convkit.rules.registry import all_rules

    return all_rules()[code]


class Problem(NamedTuple):
    """A violation of a rule, without its location; `Location.finding` adds it."""

    rule: Rule
    message: str
    pointer: str | None = None


class Location(NamedTuple):
    """The file, line and row in which a problem is."""

    file: str
    line: int | None = None
    row_id: str | None = None

    def finding(self, problem: Problem, *, fixable: bool = False) -> Finding:
        """Return the finding for a problem at this location.

        Args:
            fixable: `--fix` can fix it: the rule has a fixer, and the file may be changed.
        """
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
            fixable=fixable,
        )


@dataclass
class RowFile:
    """A row file and the counts collected while it was read."""

    path: Path
    label: str = ""
    """Name to report instead of the path, such as for standard input."""
    rows: int = 0
    bad_rows: int = 0
    """Number of invalid rows in `rows`; turns and images do not include them."""
    turns: int = 0
    images: int = 0
    sha256: str = ""
    missing: bool = False

    @property
    def name(self) -> str:
        """Return the path as findings report it."""
        return self.label or display_path(self.path)


@dataclass
class DatasetFiles:
    """The row files of one dataset, its manifest, and the data collected while they are read."""

    directory: Path
    files: list[RowFile]
    manifest: Manifest | None = None
    """None if no dataset directory was given, or it has no manifest."""
    manifest_sha256: str = ""
    whole: bool = False
    """The directory was given instead of single files, so missing and unused files are findings."""
    media: bool = True
    """Image files are read."""
    key: int = field(default_factory=new_key)
    """Hash key of all digests of this dataset in this run."""
    image_digests: DigestSet = field(default_factory=DigestSet)
    """Digests of the image paths of all valid rows; empty if images are not read."""


class RowFacts(NamedTuple):
    """Columns with one number per valid row of a chunk of a row file, in file order.

    Strings are stored as digests under `DatasetFiles.key`; 0 means that the value is absent.
    """

    file: int
    """The index of the row file in `DatasetFiles.files`."""
    lines: "Digests"
    """Line numbers, from 1."""
    ids: "Digests"
    groups: "Digests"
    inputs: "Digests"
    """System text, image paths and all texts before the last answer."""
    answers: "Digests"
    """The last turn's assistant text."""
    accepted: "Digests"
    """All accepted answers of the last turn if its assistant text is one of them, otherwise that text."""
    images: "Digests"
    """Image paths of the chunk, each once (not one per row); empty if images are not read."""


class ImageRef(NamedTuple):
    """The first reference to an image in a dataset."""

    path: str
    """Path as spelled in the rows."""
    file: int
    """The index of the row file in `DatasetFiles.files`."""
    line: int
    row_id: str
    turn: int
    image: int
    """The index in the turn's `images`."""

    @property
    def pointer(self) -> str:
        """Return the JSON pointer to the path in the row."""
        return f"/conversations/{self.turn}/images/{self.image}"


class Check:
    """The check of one rule, or of a few that share work, over a whole dataset: all rows, all images, then the end.

    There is one instance per dataset, in the main process. It may keep data, but only a few bytes per row. Rules about
    a single row are functions that run in workers; see `convkit.rules.texts`.

    Installed packages add checks as entry points of the group `convkit.rules`.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    """The rules that the check of another package reports; those of convkit are listed in the modules' `RULES`."""

    def __init__(self, dataset: DatasetFiles) -> None:
        self.dataset = dataset

    def rows(self, facts: RowFacts) -> None:
        """Process a chunk of rows; chunks arrive in the order of files and lines."""

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Return the problems of a decodable image.

        Called once per image, after all rows, in the order of first references. The properties in `image` may come
        from the media cache, so that a change of rules does not invalidate it.
        """
        return ()

    def end(self) -> Iterator[Finding]:
        """Yield the findings that need all rows and all images."""
        yield from ()

"""CK3xx: the data set as a whole, its rows against each other and against the manifest."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from convkit import layout
from convkit.findings import Finding, Severity
from convkit.rules.base import Check, DatasetFiles, Location, Problem, RowFacts, RowFile, Rule, shown
from convkit.rules.lookup import sound_rows
from convkit.schema import Split
from convkit.utils.digests import Column, contains, digest, from_bytes

DUPLICATE_ID = Rule(
    code="CK301",
    slug="duplicate-id",
    severity=Severity.ERROR,
    summary="Two rows of the data set have the same id.",
    why="Results are joined to rows by id, so one row's score overwrites the other's; and a row that is in two splits "
    "is tested on what it was trained on.",
    fix="Remove the row if it is a copy, or give it an id of its own.",
)
MANIFEST_MISMATCH = Rule(
    code="CK302",
    slug="manifest-mismatch",
    severity=Severity.ERROR,
    summary="A row file is missing, or is not the one that the manifest describes.",
    why="The manifest says how the rows came about. Where the file is another one, that account is of other rows, and "
    "a result cannot be traced back or made again.",
    fix="Restore the file or convert the source again; rows are changed by converting, not by editing.",
)
ORPHAN_IMAGE = Rule(
    code="CK303",
    slug="orphan-image",
    severity=Severity.WARNING,
    summary="A file in images/ is named by no row.",
    why="It takes space in every copy and says nothing; or a row that should be there is missing.",
    fix="Remove the file, or find out which row was lost.",
)
FOREIGN_ROWS = Rule(
    code="CK304",
    slug="foreign-rows",
    severity=Severity.WARNING,
    summary="A row file lies beside the manifest that does not list it.",
    why="It looks like a split, but is neither checked nor trained on with the data set; or the manifest is of an "
    "earlier conversion.",
    fix="Move the file elsewhere, or convert the source again with its split.",
)
DUPLICATE_ROW = Rule(
    code="CK305",
    slug="duplicate-row",
    severity=Severity.WARNING,
    summary="Rows with different ids show the same images and say the same.",
    why="The row counts twice in training; where one copy is held out later, it is tested on what was trained on.",
    fix="Remove the copies.",
)
CONFLICTING_ANSWERS = Rule(
    code="CK306",
    slug="conflicting-answers",
    severity=Severity.WARNING,
    summary="Rows ask the same of the same images and have different answers.",
    why="At most one of them can be learned; mostly one is a wrong label. Several captions of one image are fine.",
    fix="Correct the wrong label, or put all that is right into the answers of one row.",
)
LEAKED_IMAGE = Rule(
    code="CK307",
    slug="leaked-image",
    severity=Severity.ERROR,
    summary="An image of the training split is in another split as well, with the same bytes or the same pixels.",
    why="The model is tested on what it was trained on: the score says how well it remembers, and flatters it.",
    fix="Keep the rows in one of the splits, or split anew with `convkit split`, which keeps equal images together.",
)
SHARED_IMAGE = Rule(
    code="CK308",
    slug="shared-image",
    severity=Severity.WARNING,
    summary="An image is in two splits, neither of which is the training split.",
    why="A model that is chosen by one split is not new to the other: the choice flatters its score there.",
    fix="Keep the rows in one of the splits, or split anew with `convkit split`, which keeps equal images together.",
)
NEAR_DUPLICATE = Rule(
    code="CK309",
    slug="near-duplicate",
    severity=Severity.WARNING,
    summary="Two splits have images that look the same: another size or compression of one picture.",
    why="A picture that was saved again is the same to a model, so the score flatters it as that of an equal one does.",
    fix="Look at the two; if they are one picture, keep it in one split only.",
)
SEPARATED_GROUP = Rule(
    code="CK310",
    slug="separated-group",
    severity=Severity.ERROR,
    summary="Rows of one group are in different splits.",
    why="A group says that its rows may not be separated: they are cut from one video, document or patient, so the "
    "model is tested on what it has seen in training.",
    fix="Split anew with `convkit split`, which keeps groups together, or mend the group.",
)
LABEL_IMBALANCE = Rule(
    code="CK311",
    slug="label-imbalance",
    severity=Severity.WARNING,
    summary="One answer is that of at least nine in ten rows of a split.",
    why="Whoever always gives this answer scores 90 % or more, so neither the loss nor the score says whether the "
    "images are looked at.",
    fix="Balance the split, weight the rows, or measure each class by itself.",
)
UNSEEN_CLASS = Rule(
    code="CK312",
    slug="unseen-class",
    severity=Severity.WARNING,
    summary="An answer of another split never occurs in the training split, though its answers are a few classes.",
    why="The model never learned to give this answer. Mostly it is one class in two spellings.",
    fix="Spell the class as in the training split, or add rows of it there.",
)
RULES = (
    DUPLICATE_ID,
    MANIFEST_MISMATCH,
    ORPHAN_IMAGE,
    FOREIGN_ROWS,
    DUPLICATE_ROW,
    CONFLICTING_ANSWERS,
    LEAKED_IMAGE,
    SHARED_IMAGE,
    NEAR_DUPLICATE,
    SEPARATED_GROUP,
    LABEL_IMBALANCE,
    UNSEEN_CLASS,
)

_LINE_BITS = 40


class DuplicateIds(Check):
    """CK301. Keeps 16 bytes a row; only rows whose digests are equal are read again, and compared by their ids."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._ids, self._places = Column(), Column()

    def rows(self, facts: RowFacts) -> None:
        """Keep the digests of the ids and where they are."""
        import numpy as np

        self._ids.append(facts.ids)
        self._places.append(facts.lines + np.uint64(facts.file << _LINE_BITS))

    def end(self) -> Iterator[Finding]:
        """Name the first row where an id comes again."""
        first: dict[str, str] = {}
        for number, lines in sorted(self._suspects().items()):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, lines):
                place = first.setdefault(row.id, f"{file.name}:{line}")
                if place != f"{file.name}:{line}":
                    message = f"the id {row.id!r} is that of {place}"
                    yield Location(file.name, line, row.id).finding(Problem(DUPLICATE_ID, message, "/id"))

    def _suspects(self) -> dict[int, set[int]]:
        """The lines, by file, whose ids have a digest that is not theirs alone."""
        suspects: dict[int, set[int]] = {}
        repeated = self._ids.repeated()
        if len(repeated):
            for ids, places in zip(self._ids.blocks(), self._places.blocks(), strict=True):
                for place in places[contains(repeated, ids)].tolist():
                    suspects.setdefault(place >> _LINE_BITS, set()).add(place & (1 << _LINE_BITS) - 1)
        return suspects


class ManifestMismatch(Check):
    """CK302, each number that differs by itself."""

    def end(self) -> Iterator[Finding]:
        """Compare what was counted with what is written."""
        manifest = self.dataset.manifest
        if manifest is None or not self.dataset.whole:
            return
        location = Location(shown(self.dataset.directory / layout.MANIFEST))
        files = {file.path.name: file for file in self.dataset.files}
        for name, split in manifest.splits.items():
            for key, message in _differences(split, files[split.file]):
                yield location.finding(Problem(MANIFEST_MISMATCH, f"split {name}: {message}", _pointer(name, key)))


def _differences(split: Split, file: RowFile) -> Iterator[tuple[str, str]]:
    if file.missing:
        yield "file", f"{split.file} does not exist"
        return
    numbers = [("rows", split.rows, file.rows)]
    if not file.bad_rows:  # what a bad row holds cannot be counted
        numbers += [("turns", split.turns, file.turns), ("images", split.images, file.images)]
    for key, stated, counted in numbers:
        if stated != counted:
            yield key, f"{split.file} has {counted:,} {key}, the manifest says {stated:,}"
    if split.sha256 != file.sha256:
        yield "sha256", f"the digest of {split.file} is {file.sha256}, not that of the manifest"


def _pointer(split: str, key: str) -> str:
    return f"/splits/{split.replace('~', '~0').replace('/', '~1')}/{key}"


class OrphanImages(Check):
    """CK303. Says nothing where a row is bad or a file missing: it may be the one that names the image."""

    def end(self) -> Iterator[Finding]:
        """Walk through images/."""
        dataset = self.dataset
        if not (dataset.whole and dataset.media) or any(file.bad_rows or file.missing for file in dataset.files):
            return
        images = dataset.directory / layout.IMAGES
        for folder, folders, names in os.walk(images):
            folders.sort()
            prefix = (os.path.relpath(folder, images).replace(os.sep, "/") + "/").removeprefix("./")
            names.sort()
            digests = array("Q", [digest(os.fsencode(prefix + name), dataset.key) for name in names])
            known_names = dataset.image_digests.contains(from_bytes(digests.tobytes())).tolist()
            for name, known in zip(names, known_names, strict=True):
                if not known:
                    yield Location(shown(Path(folder, name))).finding(Problem(ORPHAN_IMAGE, "no row names this file"))


class ForeignRows(Check):
    """CK304."""

    def end(self) -> Iterator[Finding]:
        """Look beside the manifest."""
        manifest = self.dataset.manifest
        if manifest is None or not self.dataset.whole:
            return
        listed = {split.file for split in manifest.splits.values()}
        for path in layout.row_files(self.dataset.directory):
            if path.name not in listed:
                yield Location(shown(path)).finding(
                    Problem(FOREIGN_ROWS, f"{layout.MANIFEST} lists no split with this file")
                )


CHECKS: tuple[type[Check], ...] = (DuplicateIds, ManifestMismatch, OrphanImages, ForeignRows)

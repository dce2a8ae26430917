"""CK301 to CK304: the dataset as a whole: row ids, the manifest and unused files."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from convkit import layout
from convkit.findings import Finding, Severity
from convkit.rules.base import Check, DatasetFiles, Location, Problem, RowFacts, RowFile, Rule
from convkit.rules.lookup import LINE_BITS, lines_by_file, sound_rows
from convkit.schema import Split
from convkit.utils.digests import Column, contains, digest, from_bytes
from convkit.utils.files import display_path

DUPLICATE_ID = Rule(
    code="CK301",
    slug="duplicate-id",
    severity=Severity.ERROR,
    summary="rows with the same id",
    why="Results are joined to rows by id, so one score overwrites another. The same id in two splits suggests data "
    "leakage.",
    fix="Remove the row if it is a copy, or give it a unique id.",
)


class DuplicateIds(Check):
    """CK301. Keeps 16 bytes per row; only rows with equal digests are read again to compare their ids."""

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._ids, self._addresses = Column(), Column()

    def rows(self, facts: RowFacts) -> None:
        """Store the digests of the ids and the addresses of their rows."""
        import numpy as np

        self._ids.append(facts.ids)
        self._addresses.append(facts.lines + np.uint64(facts.file << LINE_BITS))

    def end(self) -> Iterator[Finding]:
        """Yield a finding for each row that repeats an earlier id."""
        first: dict[str, str] = {}
        for number, lines in lines_by_file(self._candidates()):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, lines):
                here = f"{file.name}:{line}"
                if (earlier := first.setdefault(row.id, here)) != here:
                    message = f"the id {row.id!r} is already used by {earlier}"
                    yield Location(file.name, line, row.id).finding(Problem(DUPLICATE_ID, message, "/id"))

    def _candidates(self) -> Iterator[int]:
        """Yield the addresses of rows whose id digest occurs more than once."""
        repeated = self._ids.repeated()
        if len(repeated):
            for ids, addresses in zip(self._ids.blocks(), self._addresses.blocks(), strict=True):
                yield from addresses[contains(repeated, ids)].tolist()


MANIFEST_MISMATCH = Rule(
    code="CK302",
    slug="manifest-mismatch",
    severity=Severity.ERROR,
    summary="row files that are missing or differ from the manifest",
    why="The manifest records how the rows were made. If the file differs, results cannot be traced or reproduced.",
    fix="Restore the file, or convert the source again. Change rows by converting, not by editing.",
)


class ManifestMismatch(Check):
    """CK302, with one finding per value that differs."""

    def end(self) -> Iterator[Finding]:
        """Compare the counts and digests with the manifest."""
        manifest = self.dataset.manifest
        if manifest is None or not self.dataset.whole:
            return
        location = Location(display_path(self.dataset.directory / layout.MANIFEST))
        files = {file.path.name: file for file in self.dataset.files}
        for name, split in manifest.splits.items():
            for key, message in _differences(split, files[split.file]):
                yield location.finding(Problem(MANIFEST_MISMATCH, f"split {name}: {message}", _pointer(name, key)))


def _differences(split: Split, file: RowFile) -> Iterator[tuple[str, str]]:
    if file.missing:
        yield "file", f"{split.file} does not exist"
        return
    numbers = [("rows", split.rows, file.rows)]
    if not file.bad_rows:  # turns and images of invalid rows are unknown
        numbers += [("turns", split.turns, file.turns), ("images", split.images, file.images)]
    for key, stated, counted in numbers:
        if stated != counted:
            yield key, f"{split.file} has {counted:,} {key}, but {stated:,} in the manifest"
    if split.sha256 != file.sha256:
        yield "sha256", f"the SHA-256 of {split.file} is {file.sha256}, which differs from the manifest"


def _pointer(split: str, key: str) -> str:
    return f"/splits/{split.replace('~', '~0').replace('/', '~1')}/{key}"


ORPHAN_IMAGE = Rule(
    code="CK303",
    slug="orphan-image",
    severity=Severity.WARNING,
    summary="files in images/ that no row uses",
    why="They take space in every copy of the dataset, or a row that should use them is missing.",
    fix="Remove the file, or find the missing row.",
)


class OrphanImages(Check):
    """CK303. Skipped if a row is invalid or a row file is missing, because it may use the image."""

    def end(self) -> Iterator[Finding]:
        """Yield a finding for each unused file in images/."""
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
                    location = Location(display_path(Path(folder, name)))
                    yield location.finding(Problem(ORPHAN_IMAGE, "no row uses this file"))


FOREIGN_ROWS = Rule(
    code="CK304",
    slug="foreign-rows",
    severity=Severity.WARNING,
    summary="row files that the manifest beside them does not list",
    why="The file looks like a split, but convkit does not check it or train on it. The manifest may also belong to "
    "an earlier conversion.",
    fix="Move the file elsewhere, or convert the source again with this split.",
)


class ForeignRows(Check):
    """CK304, for each row file in the dataset directory that is not a split."""

    def end(self) -> Iterator[Finding]:
        """Compare the row files in the directory with the manifest."""
        manifest = self.dataset.manifest
        if manifest is None or not self.dataset.whole:
            return
        listed = {split.file for split in manifest.splits.values()}
        for path in layout.row_files(self.dataset.directory):
            if path.name not in listed:
                problem = Problem(FOREIGN_ROWS, f"{layout.MANIFEST} has no split with this file")
                yield Location(display_path(path)).finding(problem)


RULES = (DUPLICATE_ID, MANIFEST_MISMATCH, ORPHAN_IMAGE, FOREIGN_ROWS)
CHECKS: tuple[type[Check], ...] = (DuplicateIds, ManifestMismatch, OrphanImages, ForeignRows)

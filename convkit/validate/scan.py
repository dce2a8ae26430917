"""Collect the findings of one dataset: results of the workers go through the checks, in order."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from tempfile import SpooledTemporaryFile
from weakref import finalize

from convkit import layout, receipt
from convkit.findings import Finding
from convkit.media.images import ImageInfo, ImageProblem
from convkit.rules import file as file_rules
from convkit.rules import media as media_rules
from convkit.rules.base import Check, DatasetFiles, ImageRef, Location, Problem, RowFacts
from convkit.rules.lookup import unlisted
from convkit.rules.registry import all_checks, all_rules
from convkit.utils.digests import from_bytes
from convkit.utils.files import display_path
from convkit.validate.fix import can_fix
from convkit.validate.model_worker import ModelFindings, Sizes
from convkit.validate.row_worker import ParsedChunk, RowProblem

MAX_KEPT = 100_000
"""Findings kept per rule; further ones are only counted. Each takes more than 1 kB of memory."""
_REFS_IN_MEMORY = 16 * 2**20


class ImageRefs:
    """The first reference to each image, in order; on disk beyond 16 MiB."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(_REFS_IN_MEMORY, "w+b")  # noqa: SIM115 closed by finalize
        finalize(self, self._file.close)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ref: ImageRef) -> None:
        """Append a reference to the file."""
        self._file.write(json.dumps(ref).encode() + b"\n")
        self._count += 1

    def __iter__(self) -> Iterator[ImageRef]:
        self._file.seek(0)
        for line in self._file:
            yield ImageRef(*json.loads(line))


class DatasetScan:
    """A dataset with its findings so far, and the digests for its validation receipt."""

    def __init__(self, dataset: DatasetFiles) -> None:
        self.dataset = dataset
        self.images = dataset.directory / layout.IMAGES
        self.findings: list[Finding] = []
        self.image_refs = ImageRefs()
        self.sizes = Sizes(dataset.key)
        self.digest = receipt.MediaDigest()
        self._checks = [check(dataset) for check in all_checks()]
        self._counts: Counter[str] = Counter()
        self._can_fix = cache(can_fix)
        self._image_checks = [check for check in self._checks if type(check).image is not Check.image]

    def add_rows(self, number: int, chunk: ParsedChunk) -> None:
        """Add the parsed rows of a chunk of file `number`; call it in the order of the chunks."""
        file = self.dataset.files[number]
        file.rows += chunk.lines - chunk.blank
        file.bad_rows += chunk.bad_rows
        file.turns += chunk.turns
        file.images += chunk.images
        self._add_row_problems(file.name, chunk.problems)
        columns = (chunk.row_lines, chunk.ids, chunk.groups, chunk.inputs, chunk.answers, chunk.accepted, chunk.paths)
        facts = RowFacts(number, *map(from_bytes, columns))
        for check in self._checks:
            check.rows(facts)
        for ref, new in zip(chunk.image_refs, self.dataset.image_digests.add(facts.images), strict=True):
            if new:
                self.image_refs.add(ref)

    def add_model_findings(self, number: int, found: ModelFindings) -> None:
        """Add the problems that a model has with rows of file `number`."""
        self._add_row_problems(self.dataset.files[number].name, found.problems)

    def _add_row_problems(self, file: str, problems: Iterable[RowProblem]) -> None:
        for line, row_id, rule, message, pointer in problems:
            self._add_problem(Location(file, line, row_id), Problem(rule, message, pointer))

    def end_file(self, number: int) -> None:
        """Report file `number` if it is empty; call it once all its rows were added."""
        file = self.dataset.files[number]
        if not file.rows and not file.missing:
            self._add_problem(Location(file.name), file_rules.empty_file())

    def add_image(self, ref: ImageRef, outcome: ImageInfo | ImageProblem) -> None:
        """Add the result of reading an image; call it in the order of the references."""
        location = Location(self.dataset.files[ref.file].name, ref.line, ref.row_id)
        if isinstance(outcome, ImageProblem):
            self._add_problem(location, media_rules.image_problem(outcome.rule, outcome.message, ref.pointer))
            return
        if outcome.sha256 is not None:
            self.digest.add(ref.path, outcome.bytes, outcome.sha256)
        for check in self._image_checks:
            for problem in check.image(ref, outcome):
                self._add_problem(location, problem._replace(pointer=problem.pointer or ref.pointer))

    def _add_problem(self, location: Location, problem: Problem) -> None:
        rule = problem.rule
        count = self._counts[rule.code] = self._counts[rule.code] + 1
        if count <= MAX_KEPT:
            fixable = rule.fixable and location.line is not None and self._can_fix(location.file)
            self.findings.append(location.finding(problem, fixable=fixable))

    def _add_findings(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._counts[finding.code] += 1
            if self._counts[finding.code] <= MAX_KEPT:
                self.findings.append(finding)

    def finish(self) -> None:
        """Run the checks that need the whole dataset, and sort: the manifest, row files, other files."""
        for check in self._checks:
            self._add_findings(check.end())
        for code, count in self._counts.items():
            self.findings.extend(unlisted(self.dataset, all_rules()[code], count, MAX_KEPT))
        names = [display_path(self.dataset.directory / layout.MANIFEST), *(file.name for file in self.dataset.files)]
        ranks = {name: rank for rank, name in enumerate(names)}
        self.findings.sort(key=lambda f: (ranks.get(f.file, len(names)), f.file, f.line or 0, f.code))

"""One data set on its way through the rules: what workers send is put together here, in order."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from weakref import finalize

from convkit import layout, receipt
from convkit.dataset import Dataset
from convkit.findings import Finding
from convkit.media.images import ImageInfo, ImageProblem
from convkit.rules import file as file_rules
from convkit.rules import media as media_rules
from convkit.rules.base import Check, Corpus, Mention, Place, Problem, RowFacts, shown
from convkit.rules.lookup import not_listed
from convkit.rules.registry import CHECKS, RULES
from convkit.utils.digests import from_bytes
from convkit.validate.model_worker import Judged, Sizes
from convkit.validate.row_worker import FirstMention, Found, Parsed

MOST_KEPT = 100_000
"""Findings of one rule; the rest is counted. Each takes more than a kilobyte, and nobody mends a million one by one."""
_MENTIONS_IN_MEMORY = 16 * 2**20


class Mentions:
    """The first mention of each image, in order; beyond 16 MiB on disk."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(_MENTIONS_IN_MEMORY, "w+b")  # noqa: SIM115 it lives as long as this
        finalize(self, self._file.close)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, file: int, first: FirstMention) -> None:
        """Keep one."""
        mention = Mention(first.path, file, *first[1:])
        self._file.write(json.dumps(mention).encode() + b"\n")
        self._count += 1

    def __iter__(self) -> Iterator[Mention]:
        self._file.seek(0)
        for line in self._file:
            yield Mention(*json.loads(line))


class Scan:
    """A data set, what was found in it so far, and what its receipt will hold."""

    def __init__(self, corpus: Corpus, dataset: Dataset | None) -> None:
        self.corpus = corpus
        self.dataset = dataset
        self.images = corpus.directory / layout.IMAGES
        self.findings: list[Finding] = []
        self.mentions = Mentions()
        self.sizes = Sizes(corpus.key)
        self.digest = receipt.MediaDigest()
        self._checks = [check(corpus) for check in CHECKS]
        self._counts: Counter[str] = Counter()
        self._image_checks = [check for check in self._checks if type(check).image is not Check.image]

    def take_rows(self, number: int, parsed: Parsed) -> None:
        """Take in a piece of the file of this number; pieces come in order."""
        file = self.corpus.files[number]
        file.rows += parsed.lines - parsed.blank
        file.bad_rows += parsed.bad_rows
        file.turns += parsed.turns
        file.images += parsed.images
        self._found_in_rows(file.name, parsed.found)
        columns = (parsed.at, parsed.ids, parsed.groups, parsed.inputs, parsed.answers, parsed.accepted, parsed.paths)
        facts = RowFacts(number, *map(from_bytes, columns))
        for check in self._checks:
            check.rows(facts)
        for first, new in zip(parsed.mentions, self.corpus.mentioned.add(facts.images), strict=True):
            if new:
                self.mentions.add(number, first)

    def take_judged(self, number: int, judged: Judged) -> None:
        """Take in what a model makes of a piece of the file of this number."""
        self._found_in_rows(self.corpus.files[number].name, judged.found)

    def _found_in_rows(self, file: str, several: Iterable[Found]) -> None:
        for line, row_id, code, message, pointer in several:
            self._found(Place(file, line, row_id), Problem(RULES[code], message, pointer))

    def file_ends(self, number: int) -> None:
        """Say what is to say of a file whose rows were all read."""
        file = self.corpus.files[number]
        if not file.rows and not file.missing:
            self._found(Place(file.name), Problem(file_rules.EMPTY_FILE, "the file holds no row"))

    def take_image(self, mention: Mention, outcome: ImageInfo | ImageProblem) -> None:
        """Take in what was seen of an image; called in the order of the mentions."""
        place = Place(self.corpus.files[mention.file].name, mention.line, mention.row_id)
        if isinstance(outcome, ImageProblem):
            self._found(place, media_rules.image_problem(outcome.rule, outcome.message, mention.pointer))
            return
        if outcome.sha256 is not None:
            self.digest.add(mention.path, outcome.bytes, outcome.sha256)
        for check in self._image_checks:
            for problem in check.image(mention, outcome):
                self._found(place, problem._replace(pointer=problem.pointer or mention.pointer))

    def _found(self, place: Place, problem: Problem) -> None:
        self._counts[problem.rule.code] += 1
        if self._counts[problem.rule.code] <= MOST_KEPT:
            self.findings.append(place.finding(problem))

    def add(self, findings: Iterable[Finding]) -> None:
        """Take in what was found elsewhere."""
        for finding in findings:
            self._counts[finding.code] += 1
            if self._counts[finding.code] <= MOST_KEPT:
                self.findings.append(finding)

    def end(self) -> None:
        """Ask what is asked at the end, and put the findings in order: the manifest, row files, other files."""
        for check in self._checks:
            self.add(check.end())
        for code, count in self._counts.items():
            self.findings.extend(not_listed(self.corpus, RULES[code], count, MOST_KEPT))
        names = [shown(self.corpus.directory / layout.MANIFEST), *(file.name for file in self.corpus.files)]
        ranks = {name: rank for rank, name in enumerate(names)}
        self.findings.sort(key=lambda f: (ranks.get(f.file, len(names)), f.file, f.line or 0, f.code))

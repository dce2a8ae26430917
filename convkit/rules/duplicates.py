"""CK305 and CK306: duplicate rows, and rows that contradict each other."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.rules.base import Check, DatasetFiles, ImageRef, Location, Problem, RowFacts, Rule
from convkit.rules.lookup import (
    LINE_BITS,
    MAX_LISTED,
    DigestBuffer,
    image_paths,
    lines_by_file,
    quoted,
    runs,
    sound_rows,
    unlisted,
)
from convkit.schema import Row
from convkit.utils.digests import Column, contains, digest

if TYPE_CHECKING:
    from convkit.media.images import ImageInfo
    from convkit.utils.digests import Digests

DUPLICATE_ROW = Rule(
    code="CK305",
    slug="duplicate-row",
    severity=Severity.WARNING,
    summary="duplicate rows, with the same images and texts but different ids",
    why="The row counts twice in training. If one copy is held out later, the model is evaluated on training data.",
    fix="Remove the duplicates.",
)
CONFLICTING_ANSWERS = Rule(
    code="CK306",
    slug="conflicting-answers",
    severity=Severity.WARNING,
    summary="rows with the same images and prompt but different answers",
    why="The model can learn at most one of the answers, and usually one is a wrong label. Different captions of one "
    "image are fine.",
    fix="Correct the wrong label, or list all correct answers in `answers` of one row.",
)
_MASK = 2**64 - 1
_MAX_COMPARED = 10


class _RereadRow(NamedTuple):
    """The parts of a row that are compared, after it was read a second time."""

    location: Location
    prompt: bytes
    """Digest of all texts before the last answer."""
    answer: str | None
    answer_digest: bytes
    accepted: frozenset[bytes]
    """Digests of the answer and of all accepted answers."""

    def __str__(self) -> str:
        return f"{self.location.file}:{self.location.line}"

    def contradicts(self, other: "_RereadRow") -> bool:
        """Return true for rows with the same prompt of which one does not accept the other's answer."""
        return self.prompt == other.prompt and not (
            self.answer_digest in other.accepted and other.answer_digest in self.accepted
        )


class RepeatedRows(Check):
    """CK305 and CK306, with one finding per set of rows. Keeps 32 bytes per row and 16 per image.

    Images are equal if their pixels are, whatever their names.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._inputs, self._answers, self._accepted, self._addresses = Column(), Column(), Column(), Column()
        self._paths, self._pixels = DigestBuffer(), DigestBuffer()

    def rows(self, facts: RowFacts) -> None:
        """Store the digests of prompts and answers, and the locations of the rows."""
        import numpy as np

        self._inputs.append(facts.inputs)
        self._answers.append(facts.answers)
        self._accepted.append(facts.accepted)
        self._addresses.append(facts.lines + np.uint64(facts.file << LINE_BITS))

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Store the pixel digest of an image."""
        if image.sha256 is not None:
            self._paths.add(digest(image_ref.path.encode(), self.dataset.key))
            self._pixels.add(image.pixel_digest)
        return ()

    def end(self) -> Iterator[Finding]:
        """Yield a finding at the second row of each set; its message refers to the first one."""
        inputs = self._by_content()
        repeated = inputs.repeated()
        if len(repeated):
            yield from self._duplicates(*self._candidates(repeated, inputs, self._answers))
            yield from self._conflicts(*self._candidates(repeated, inputs, self._accepted))

    def _by_content(self) -> Column:
        """Return the input digests; rows with duplicated images are hashed by pixels instead of image paths."""
        import numpy as np

        copies = self._copies()
        if not copies:
            return self._inputs
        addresses, keys = DigestBuffer(), DigestBuffer()
        for number, file in enumerate(self.dataset.files):
            for line, row in sound_rows(file):
                paths = [digest(path.encode(), self.dataset.key) for path, _ in image_paths(row)]
                if any(path in copies for path in paths):
                    addresses.add(number << LINE_BITS | line)
                    keys.add(self._key(row, [copies.get(path, path) for path in paths]))
        replaced, new = addresses.all(), keys.all()
        column = Column()
        for inputs, at in zip(self._inputs.blocks(), self._addresses.blocks(), strict=True):
            known = contains(replaced, at) if len(replaced) else np.zeros(len(at), np.bool_)
            inputs = inputs.copy()
            inputs[known] = new[np.searchsorted(replaced, at[known])]
            column.append(inputs)
        return column

    def _copies(self) -> dict[int, int]:
        """Return the pixel digests of duplicated images by the digests of their paths."""
        import numpy as np

        paths, pixels = self._paths.all(), self._pixels.all()
        values, counts = np.unique(pixels, return_counts=True)
        repeated = values[counts > 1]
        if not len(repeated):
            return {}
        chosen = contains(repeated, pixels)
        return dict(zip(paths[chosen].tolist(), pixels[chosen].tolist(), strict=True))

    def _key(self, row: Row, images: Sequence[int]) -> int:
        texts = (digest(text.encode(), self.dataset.key) for text in _prompt_texts(row))
        return hash((*images, *texts)) & _MASK

    def _candidates(self, repeated: "Digests", inputs: Column, outputs: Column) -> "tuple[Digests, Digests, Digests]":
        """Return input, answer and location of the rows whose input is in `repeated`, sorted in this order."""
        import numpy as np

        found: list[list[Digests]] = [[], [], []]
        for blocks in zip(inputs.blocks(), outputs.blocks(), self._addresses.blocks(), strict=True):
            chosen = contains(repeated, blocks[0])
            for column, block in zip(found, blocks, strict=True):
                column.append(block[chosen])
        keys, answers, addresses = (np.concatenate([np.zeros(0, np.uint64), *column]) for column in found)
        order = np.lexsort((addresses, answers, keys))
        return keys[order], answers[order], addresses[order]

    def _duplicates(self, keys: "Digests", answers: "Digests", addresses: "Digests") -> Iterator[Finding]:
        starts, sizes = runs(keys, answers)
        several = sizes > 1
        clusters = sorted(
            (addresses[start : start + min(size, _MAX_COMPARED)].tolist(), size)
            for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True)
        )
        for (first, *others), size in self._read_clusters(clusters):
            same = (
                other for other in others if (other.prompt, other.answer_digest) == (first.prompt, first.answer_digest)
            )
            # Rows with equal ids are reported by CK301.
            if other := next((other for other in same if other.location.row_id != first.location.row_id), None):
                more = f" and {size - 2:,} more rows" if size > 2 else ""
                yield other.location.finding(Problem(DUPLICATE_ROW, f"same images and texts as {first}{more}"))
        yield from unlisted(self.dataset, DUPLICATE_ROW, len(clusters))

    def _conflicts(self, keys: "Digests", accepted: "Digests", addresses: "Digests") -> Iterator[Finding]:
        import numpy as np

        starts, _ = runs(keys, accepted)
        starts = starts[accepted[starts] != 0]
        order = np.lexsort((addresses[starts], keys[starts]))
        keys, addresses = keys[starts][order], addresses[starts][order]
        begins, sizes = runs(keys)
        several = sizes > 1
        clusters = sorted(
            (addresses[begin : begin + min(size, _MAX_COMPARED)].tolist(), size)
            for begin, size in zip(begins[several].tolist(), sizes[several].tolist(), strict=True)
        )
        for (one, *others), size in self._read_clusters(clusters):
            if other := next(filter(one.contradicts, others), None):
                more = f"; {size} different answers in total" if size > 2 else ""
                message = f"the answer is {quoted(other.answer or '')}, but {quoted(one.answer or '')} at {one}{more}"
                yield other.location.finding(Problem(CONFLICTING_ANSWERS, message))
        yield from unlisted(self.dataset, CONFLICTING_ANSWERS, len(clusters))

    def _read_clusters(self, clusters: Sequence[tuple[list[int], int]]) -> Iterator[tuple[list[_RereadRow], int]]:
        """Yield the rows of the first clusters, with the size of each cluster."""
        read = self._read(address for compared, _ in clusters[:MAX_LISTED] for address in compared)
        for compared, size in clusters[:MAX_LISTED]:
            if rows := [read[address] for address in compared if address in read]:
                yield rows, size

    def _read(self, addresses: Iterable[int]) -> dict[int, _RereadRow]:
        rows = {}
        for number, lines in lines_by_file(addresses):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, lines):
                location, last = Location(file.name, line, row.id), row.conversations[-1]
                answer = None if last.assistant is None else last.assistant[:100]
                prompt, answer_digest = _hash(_prompt_texts(row)), _hash([repr(last.assistant)])
                accepted = frozenset((answer_digest, *(_hash([repr(answer)]) for answer in last.answers or ())))
                rows[number << LINE_BITS | line] = _RereadRow(location, prompt, answer, answer_digest, accepted)
        return rows


def _prompt_texts(row: Row) -> Iterator[str]:
    """Yield all texts before the last answer, each prefixed with its role."""
    yield f"system {row.system}"
    for turn in row.conversations:
        yield f"user {len(turn.images)} {turn.user}"
        if turn is not row.conversations[-1]:
            yield f"assistant {turn.assistant}"


def _hash(texts: Iterable[str]) -> bytes:
    digests = (blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return blake2b(b"".join(digests), digest_size=16).digest()


RULES = (DUPLICATE_ROW, CONFLICTING_ANSWERS)
CHECKS: tuple[type[Check], ...] = (RepeatedRows,)

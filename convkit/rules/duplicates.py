"""CK305 and CK306: rows that say the same, or that contradict each other. The rules are in `convkit.rules.dataset`."""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from convkit.findings import Finding, Severity
from convkit.rules.base import Check, DatasetFiles, ImageRef, Location, Problem, RowFacts, Rule
from convkit.rules.lookup import MOST_LISTED, Growing, image_paths, not_listed, quoted, runs, sound_rows
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
LINE_BITS = 40
_MASK = 2**64 - 1
_MOST_TRIED = 10


class _Seen(NamedTuple):
    """What is kept of a row that is looked at again."""

    location: Location
    asks: bytes
    answer: str | None
    says: bytes
    accepts: frozenset[bytes]
    """What it says, and all else that it counts as right."""

    def __str__(self) -> str:
        return f"{self.location.file}:{self.location.line}"

    def contradicts(self, other: "_Seen") -> bool:
        """They ask the same, and one does not accept the other's answer."""
        return self.asks == other.asks and not (self.says in other.accepts and other.says in self.accepts)


class RepeatedRows(Check):
    """CK305 and CK306, one finding for each set of rows. Keeps 32 bytes a row and 16 an image.

    Images are the same where their pixels are, whatever their names.
    """

    def __init__(self, dataset: DatasetFiles) -> None:
        super().__init__(dataset)
        self._inputs, self._answers, self._accepted, self._places = Column(), Column(), Column(), Column()
        self._paths, self._pixels = Growing(), Growing()

    def rows(self, facts: RowFacts) -> None:
        """Keep what rows ask and answer, and where they are."""
        import numpy as np

        self._inputs.append(facts.inputs)
        self._answers.append(facts.answers)
        self._accepted.append(facts.accepted)
        self._places.append(facts.lines + np.uint64(facts.file << LINE_BITS))

    def image(self, image_ref: ImageRef, image: "ImageInfo") -> Iterable[Problem]:
        """Keep what an image shows."""
        if image.sha256 is not None:
            self._paths.add(digest(image_ref.path.encode(), self.dataset.key))
            self._pixels.add(image.pixel_digest)
        return ()

    def end(self) -> Iterator[Finding]:
        """Name the second row of each set, and in its message the first one."""
        inputs = self._by_content()
        repeated = inputs.repeated()
        if len(repeated):
            yield from self._duplicates(*self._suspects(repeated, inputs, self._answers))
            yield from self._conflicts(*self._suspects(repeated, inputs, self._accepted))

    def _by_content(self) -> Column:
        """The inputs of all rows, with names of images replaced by pixels in rows that show one of several copies."""
        import numpy as np

        copies = self._copies()
        if not copies:
            return self._inputs
        places, keys = Growing(), Growing()
        for number, file in enumerate(self.dataset.files):
            for line, row in sound_rows(file):
                shown = [digest(path.encode(), self.dataset.key) for path, _ in image_paths(row)]
                if any(path in copies for path in shown):
                    places.add(number << LINE_BITS | line)
                    keys.add(self._key(row, [copies.get(path, path) for path in shown]))
        replaced, new = places.all(), keys.all()
        column = Column()
        for inputs, at in zip(self._inputs.blocks(), self._places.blocks(), strict=True):
            known = contains(replaced, at) if len(replaced) else np.zeros(len(at), np.bool_)
            inputs = inputs.copy()
            inputs[known] = new[np.searchsorted(replaced, at[known])]
            column.append(inputs)
        return column

    def _copies(self) -> dict[int, int]:
        """The pixels of images that are not the only ones with them, by the digests of their names."""
        import numpy as np

        paths, pixels = self._paths.all(), self._pixels.all()
        values, counts = np.unique(pixels, return_counts=True)
        repeated = values[counts > 1]
        if not len(repeated):
            return {}
        chosen = contains(repeated, pixels)
        return dict(zip(paths[chosen].tolist(), pixels[chosen].tolist(), strict=True))

    def _key(self, row: Row, shown: Sequence[int]) -> int:
        texts = (digest(text.encode(), self.dataset.key) for text in _asked(row))
        return hash((*shown, *texts)) & _MASK

    def _suspects(self, repeated: "Digests", inputs: Column, answers: Column) -> "tuple[Digests, Digests, Digests]":
        """Input, answer and place of the rows whose input is one of `repeated`, sorted so."""
        import numpy as np

        found: list[list[Digests]] = [[], [], []]
        for blocks in zip(inputs.blocks(), answers.blocks(), self._places.blocks(), strict=True):
            chosen = contains(repeated, blocks[0])
            for column, block in zip(found, blocks, strict=True):
                column.append(block[chosen])
        keys, says, places = (np.concatenate([np.zeros(0, np.uint64), *column]) for column in found)
        order = np.lexsort((places, says, keys))
        return keys[order], says[order], places[order]

    def _duplicates(self, keys: "Digests", answers: "Digests", places: "Digests") -> Iterator[Finding]:
        starts, sizes = runs(keys, answers)
        several = sizes > 1
        clusters = sorted(
            (places[start : start + min(size, _MOST_TRIED)].tolist(), size)
            for start, size in zip(starts[several].tolist(), sizes[several].tolist(), strict=True)
        )
        for (first, *others), size in self._look_at(clusters):
            same = (other for other in others if (other.asks, other.says) == (first.asks, first.says))
            # Where the ids are equal as well, that is another rule's business.
            if other := next((other for other in same if other.location.row_id != first.location.row_id), None):
                more = f", as in {size - 2:,} more rows" if size > 2 else ""
                yield other.location.finding(Problem(DUPLICATE_ROW, f"all but the id is as in {first}{more}"))
        yield from not_listed(self.dataset, DUPLICATE_ROW, len(clusters))

    def _conflicts(self, keys: "Digests", accepted: "Digests", places: "Digests") -> Iterator[Finding]:
        import numpy as np

        starts, _ = runs(keys, accepted)
        starts = starts[accepted[starts] != 0]
        order = np.lexsort((places[starts], keys[starts]))
        keys, places = keys[starts][order], places[starts][order]
        begins, sizes = runs(keys)
        several = sizes > 1
        clusters = sorted(
            (places[begin : begin + min(size, _MOST_TRIED)].tolist(), size)
            for begin, size in zip(begins[several].tolist(), sizes[several].tolist(), strict=True)
        )
        for (one, *others), size in self._look_at(clusters):
            if other := next(filter(one.contradicts, others), None):
                more = f"; {size} different answers in all" if size > 2 else ""
                message = f"the answer {quoted(other.answer or '')} is {quoted(one.answer or '')} in {one}{more}"
                yield other.location.finding(Problem(CONFLICTING_ANSWERS, message))
        yield from not_listed(self.dataset, CONFLICTING_ANSWERS, len(clusters))

    def _look_at(self, clusters: Sequence[tuple[list[int], int]]) -> Iterator[tuple[list[_Seen], int]]:
        """The rows of the first clusters, with the clusters' sizes."""
        seen = self._look(place for tried, _ in clusters[:MOST_LISTED] for place in tried)
        for tried, size in clusters[:MOST_LISTED]:
            if rows := [seen[place] for place in tried if place in seen]:
                yield rows, size

    def _look(self, places: Iterable[int]) -> dict[int, _Seen]:
        lines: dict[int, set[int]] = {}
        for place in places:
            lines.setdefault(place >> LINE_BITS, set()).add(place & (1 << LINE_BITS) - 1)
        seen = {}
        for number, wanted in sorted(lines.items()):
            file = self.dataset.files[number]
            for line, row in sound_rows(file, wanted):
                at, last = Location(file.name, line, row.id), row.conversations[-1]
                shown = None if last.assistant is None else last.assistant[:100]
                asks, says = _hash(_asked(row)), _hash([repr(last.assistant)])
                accepts = frozenset((says, *(_hash([repr(answer)]) for answer in last.answers or ())))
                seen[number << LINE_BITS | line] = _Seen(at, asks, shown, says, accepts)
        return seen


def _asked(row: Row) -> Iterator[str]:
    """All texts before the last answer, each with its place."""
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

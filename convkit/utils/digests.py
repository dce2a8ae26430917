"""Strings of a large data set in eight bytes each: what it takes to tell equal ones in constant memory.

A digest is 64 bits of XXH3 under a key that is drawn for each run, so that nobody can prepare strings that collide.
Two of ten million different strings share a digest once in 300,000 runs; who must not err looks at the strings
themselves where digests are equal. NumPy is imported where it is used.
"""

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from weakref import finalize

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Digests = NDArray[np.uint64]

SPILL_BYTES = 64 * 2**20
"""What a column or a set keeps in memory; the rest goes to a temporary file."""
_ITEM = 8


def new_key() -> int:
    """A key for one run."""
    return int.from_bytes(os.urandom(_ITEM))


digest: Callable[[bytes, int], int] = xxh3_64_intdigest
"""64 bits of a string in UTF-8, under a key."""


def packed_digests(texts: Iterable[str], key: int) -> bytes:
    """The digests of many strings, for `from_bytes`."""
    return array("Q", [xxh3_64_intdigest(text.encode(), key) for text in texts]).tobytes()


def from_bytes(packed: bytes) -> "Digests":
    """The digests that a worker has sent, as `array('Q').tobytes()`."""
    import numpy as np

    return np.frombuffer(packed, np.uint64)


class Column:
    """One digest for each of many things, in their order; beyond `SPILL_BYTES` on disk."""

    def __init__(self) -> None:
        self._recent: list[Digests] = []
        self._recent_bytes = 0
        self._file: BinaryIO | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, digests: "Digests") -> None:
        """Add digests at the end."""
        self._recent.append(digests)
        self._recent_bytes += digests.nbytes
        self._count += len(digests)
        if self._recent_bytes > SPILL_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="convkit-"))  # noqa: SIM115 it lives as long as this
            finalize(self, self._file.close)
        self._file.seek(0, os.SEEK_END)
        for digests in self._recent:
            self._file.write(digests.tobytes())
        self._recent, self._recent_bytes = [], 0

    def blocks(self) -> "Iterator[Digests]":
        """All digests in order, a bounded number at a time: as many of any column, however they were added."""
        import numpy as np

        recent = np.concatenate([np.zeros(0, np.uint64), *self._recent])
        items = SPILL_BYTES // 8 // _ITEM
        if self._file is not None:
            self._file.seek(0)
            while packed := self._file.read(items * _ITEM):
                missing = items - len(packed) // _ITEM
                yield np.concatenate([from_bytes(packed), recent[:missing]])
                recent = recent[missing:]
        for start in range(0, len(recent), items):
            yield recent[start : start + items]

    def repeated(self) -> "Digests":
        """The digests that occur more than once, sorted.

        Beyond `SPILL_BYTES` they are sorted a share at a time, by their first bits.
        """
        import numpy as np

        shares = max(1, -(-self._count * _ITEM // SPILL_BYTES))
        width = np.uint64(-(-(2**64) // shares) if shares > 1 else 1)
        found = []
        for share in range(shares):
            parts = [block if shares == 1 else block[block // width == share] for block in self.blocks()]
            digests = np.sort(np.concatenate([np.zeros(0, np.uint64), *parts]))
            found.append(np.unique(digests[1:][digests[1:] == digests[:-1]]))
        return np.concatenate(found)


class DigestSet:
    """A set of digests in eight bytes each, as sorted runs that are merged as they grow; large ones lie on disk."""

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def contains(self, digests: "Digests") -> "NDArray[np.bool_]":
        """Which of the digests are in the set."""
        import numpy as np

        known = np.zeros(len(digests), np.bool_)
        for run in self._runs:
            known |= contains(run, digests)
        return known

    def add(self, digests: "Digests") -> "NDArray[np.bool_]":
        """Add digests; the answer says which of them are new. Among equal ones that is the first."""
        import numpy as np

        new = np.zeros(len(digests), np.bool_)
        new[np.unique(digests, return_index=True)[1]] = True
        new &= ~self.contains(digests)
        if new.any():
            self._insert(np.sort(digests[new]))
        return new

    def _insert(self, run: "Digests") -> None:
        import numpy as np

        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        self._runs.append(_on_disk(run) if run.nbytes > SPILL_BYTES else run)


def contains(run: "Digests", digests: "Digests") -> "NDArray[np.bool_]":
    """Which digests are in a sorted run that is not empty."""
    import numpy as np

    places = np.searchsorted(run, digests)
    places[places == len(run)] = 0
    return np.asarray(run[places] == digests)


def _on_disk(run: "Digests") -> "Digests":
    import numpy as np

    with tempfile.TemporaryFile(prefix="convkit-") as file:
        run.tofile(file)
        file.flush()
        mapped: Any = np.memmap(file, np.uint64, "r")
    return cast("Digests", mapped)

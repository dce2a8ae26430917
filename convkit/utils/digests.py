"""64-bit digests of the strings of a large dataset, to find equal strings in bounded memory.

A digest is 64 bits of XXH3 under a key that is drawn per run, so nobody can prepare strings that collide. Among ten
million different strings, two share a digest once in 300,000 runs. Code that must be exact compares the strings
themselves where digests are equal. NumPy is imported only where it is used.
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
"""The most bytes that a column or a set keeps in memory; the rest goes to a temporary file."""
_ITEM = 8


def new_key() -> int:
    """Return a random key for one run."""
    return int.from_bytes(os.urandom(_ITEM))


digest: Callable[[bytes, int], int] = xxh3_64_intdigest
"""Return 64 bits of a UTF-8 string under a key."""


def packed_digests(texts: Iterable[str], key: int) -> bytes:
    """Return the digests of many strings, packed for `from_bytes`."""
    return array("Q", [xxh3_64_intdigest(text.encode(), key) for text in texts]).tobytes()


def from_bytes(packed: bytes) -> "Digests":
    """Unpack digests that a worker sent as `array('Q').tobytes()`."""
    import numpy as np

    return np.frombuffer(packed, np.uint64)


class Column:
    """A sequence of digests in order; beyond `SPILL_BYTES` it is stored on disk."""

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
            self._file = cast(BinaryIO, tempfile.TemporaryFile(prefix="convkit-"))  # noqa: SIM115 closed with this object
            finalize(self, self._file.close)
        self._file.seek(0, os.SEEK_END)
        for digests in self._recent:
            self._file.write(digests.tobytes())
        self._recent, self._recent_bytes = [], 0

    def blocks(self) -> "Iterator[Digests]":
        """Yield all digests in order, in blocks whose sizes depend only on their total number."""
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
        """Return the digests that occur more than once, sorted.

        Beyond `SPILL_BYTES`, the digests are sorted in several passes by their first bits.
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
    """A set of digests in eight bytes each, as sorted runs that are merged as they grow; large runs are on disk."""

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def contains(self, digests: "Digests") -> "NDArray[np.bool_]":
        """Return a mask of the digests that are in the set."""
        import numpy as np

        known = np.zeros(len(digests), np.bool_)
        for run in self._runs:
            known |= contains(run, digests)
        return known

    def add(self, digests: "Digests") -> "NDArray[np.bool_]":
        """Add digests, and return a mask of the new ones; of equal digests only the first is new."""
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
    """Return a mask of the digests that are in a sorted, non-empty run."""
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

"""The whole run, laid out before its first step: which rows are trained on when, where, and with which others.

A plan is a function of the rows' lengths and a few options: it needs no image, no model and no state, so that any
step of it can be asked for at once. Digests of 64 bits order the rows, which are the same on every machine and in
every version of Python.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush

from xxhash import xxh3_64_intdigest

from convkit.errors import ConvkitError

VERSION = 1
"""Raised whenever the same lengths and options give another plan."""

Pack = tuple[int, ...]
"""Numbers of the rows that go through the model together."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a plan depends on beside the rows."""

    epochs: int
    batch_size: int
    """Rows of a global batch; the last one of an epoch has those that are left."""
    max_tokens: int
    """Of a pack."""
    max_rows: int | None = None
    """Of a pack; no limit if not given."""
    seed: int = 0
    padded: bool = False
    """Rows of a pack are filled up to its longest, instead of laid end to end; the filling counts as tokens."""
    dropped: int = 0
    """Rows that were left out because no pack may be so long; they are not among the lengths."""


class Plan:
    """Steps are counted from 0 through all epochs.

    Args:
        lengths: tokens of each row.

    Raises:
        ConvkitError: there are no rows, or one is longer than a pack may be.
    """

    def __init__(self, lengths: Sequence[int], options: PlanOptions) -> None:
        if not lengths:
            raise ConvkitError("There is no row to train on. Name a split that has rows with --split.")
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] > options.max_tokens:
            raise ConvkitError(
                f"Row {longest + 1:,} has {lengths[longest]:,} tokens, more than --max_tokens {options.max_tokens:,}. "
                "Raise --max_tokens, lower --num_crops, or leave the row out."
            )
        self.lengths = lengths
        self.options = options
        self.steps_per_epoch = -(-len(lengths) // options.batch_size)
        self.steps = self.steps_per_epoch * options.epochs
        self.rows = len(lengths) * options.epochs
        """Rows of the whole run, each counted once an epoch."""
        self._order = lru_cache(2)(self._ordered)
        self._bins = lru_cache(2)(self._binned)

    @property
    def digest(self) -> str:
        """Of all that the plan is a function of: equal digests are equal plans."""
        total = hashlib.sha256(f"{VERSION} {self.options}\n".encode())
        for length in self.lengths:
            total.update(struct.pack("<Q", length))
        return total.hexdigest()

    def batch(self, step: int) -> Pack:
        """The rows of the global batch of a step, the same for any number of ranks."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.options.batch_size
        return self._order(epoch)[place * size : (place + 1) * size]

    def packs(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Pack, ...]:
        """What a rank trains on in a step, the heaviest pack first; empty where there are fewer rows than ranks."""
        bins = self._bins(step, ranks)
        # There and back again: the rank that had the heavier pack of one round has the lighter one of the next.
        return tuple(
            pack for place, pack in enumerate(bins) if rank == min(place % (2 * ranks), -(place + 1) % (2 * ranks))
        )

    def rounds(self, step: int, ranks: int) -> int:
        """Packs of the rank that has most of them in a step."""
        return max(len(self.packs(step, rank, ranks)) for rank in range(ranks))

    def heaviest(self, ranks: int = 1) -> Pack:
        """The pack with the most tokens of the whole run, filling included."""
        return max((self.packs(step, 0, ranks)[0] for step in range(self.steps)), key=self._weight)

    def count_packs(self, ranks: int) -> int:
        """Packs of the whole run, on all ranks together."""
        return sum(len(self._bins(step, ranks)) for step in range(self.steps))

    def tokens(self, pack: Pack) -> int:
        """Of all rows of a pack."""
        return sum(self.lengths[row] for row in pack)

    def _weight(self, pack: Pack) -> int:
        return _weight([self.lengths[row] for row in pack], self.options.padded)

    def _binned(self, step: int, ranks: int) -> list[Pack]:
        return _balanced(self.batch(step), self.lengths, self.options, ranks)

    def _ordered(self, epoch: int) -> Pack:
        seed = self.options.seed
        keys = [xxh3_64_intdigest(struct.pack("<QQ", epoch, row), seed) for row in range(len(self.lengths))]
        return tuple(sorted(range(len(keys)), key=keys.__getitem__))


def _balanced(rows: Pack, lengths: Sequence[int], options: PlanOptions, ranks: int) -> list[Pack]:
    """Rows in as few packs as their limits allow, as many for each rank, of like weights; the heaviest first."""
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    most_rows = options.max_rows or len(rows)
    count = max(-(-sum(lengths[row] for row in rows) // options.max_tokens), -(-len(rows) // most_rows))
    count = -(-count // ranks) * ranks
    while (bins := _fill(ordered, lengths, min(count, len(rows)), options, most_rows)) is None:
        count += ranks
    return bins


def _fill(
    ordered: Sequence[int], lengths: Sequence[int], count: int, options: PlanOptions, rows: int
) -> list[Pack] | None:
    """The longest row first, each into the lightest of `count` packs; None where one does not fit."""
    packs: list[list[int]] = [[] for _ in range(count)]
    weights = [0] * count
    open_packs = [(0, number) for number in range(count)]
    heapify(open_packs)
    for row in ordered:
        if not open_packs:
            return None
        weight, number = heappop(open_packs)
        pack = packs[number]
        pack.append(row)
        weights[number] = len(pack) * lengths[pack[0]] if options.padded else weight + lengths[row]
        if weights[number] > options.max_tokens:
            return None
        if len(pack) < rows:
            heappush(open_packs, (weights[number], number))
    heaviest = sorted(range(count), key=lambda number: (-weights[number], number))
    return [tuple(packs[number]) for number in heaviest]


def _weight(lengths: Sequence[int], padded: bool) -> int:
    return len(lengths) * max(lengths) if padded else sum(lengths)

"""Batch schedule of a run: which rows each rank trains on in each step, and how they are packed into micro-batches.

The schedule depends only on the rows' lengths and a few options. It needs no image, model or state, so any step can
be computed directly; this is what makes resuming exact. Rows are shuffled by 64-bit hashes, which are the same on every
machine and in every Python version.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush

from xxhash import xxh3_64_intdigest

from convkit.errors import ConvkitError

VERSION = 1
"""Increase this whenever the same lengths and options give another schedule."""

MicroBatch = tuple[int, ...]
"""Indices of the rows that go through the model together."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The options that a schedule depends on, besides the rows' lengths."""

    epochs: int
    batch_size: int
    """Rows per global batch; the last batch of an epoch has the remaining rows."""
    max_tokens: int
    """Token limit per micro-batch."""
    max_rows: int | None = None
    """Row limit per micro-batch; None means no limit."""
    seed: int = 0
    padded: bool = False
    """Pad the rows of a micro-batch to its longest row instead of packing them; padding counts as tokens."""
    dropped: int = 0
    """Number of rows left out because they exceed `max_tokens`; their lengths are not in the schedule."""


class BatchSchedule:
    """All steps of a run, counted from 0 through all epochs.

    Args:
        lengths: tokens of each row.

    Raises:
        ConvkitError: there are no rows, or a row exceeds `max_tokens`.
    """

    def __init__(self, lengths: Sequence[int], options: ScheduleOptions) -> None:
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
        """Rows of the whole run; a row counts once per epoch."""
        self._shuffled = lru_cache(2)(self._shuffle)
        self._packed = lru_cache(2)(self._pack)

    @property
    def digest(self) -> str:
        """SHA-256 of everything the schedule depends on: equal digests mean equal schedules."""
        total = hashlib.sha256(f"{VERSION} {asdict(self.options)}\n".encode())
        for length in self.lengths:
            total.update(struct.pack("<Q", length))
        return total.hexdigest()

    def batch(self, step: int) -> MicroBatch:
        """Return the rows of a step's global batch, which is the same for any number of ranks."""
        epoch, position = divmod(step, self.steps_per_epoch)
        size = self.options.batch_size
        return self._shuffled(epoch)[position * size : (position + 1) * size]

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[MicroBatch, ...]:
        """Return a rank's micro-batches of a step, heaviest first; none if the step has fewer rows than ranks."""
        # Dealt out back and forth: the rank with the heavier micro-batch of one round has the lighter one of the next.
        return tuple(
            micro_batch
            for position, micro_batch in enumerate(self._packed(step, ranks))
            if rank == min(position % (2 * ranks), -(position + 1) % (2 * ranks))
        )

    def rounds(self, step: int, ranks: int) -> int:
        """Return the largest number of micro-batches that a rank has in a step."""
        return max(len(self.micro_batches(step, rank, ranks)) for rank in range(ranks))

    def heaviest(self, ranks: int = 1) -> MicroBatch:
        """Return the micro-batch with the most tokens of the whole run, padding included."""
        return max((self.micro_batches(step, 0, ranks)[0] for step in range(self.steps)), key=self._weight)

    def count_micro_batches(self, ranks: int) -> int:
        """Return the number of micro-batches of the whole run, on all ranks together."""
        return sum(len(self._packed(step, ranks)) for step in range(self.steps))

    def tokens(self, rows: Sequence[int]) -> int:
        """Return the total tokens of rows, without padding."""
        return sum(self.lengths[row] for row in rows)

    def _weight(self, micro_batch: MicroBatch) -> int:
        lengths = [self.lengths[row] for row in micro_batch]
        return len(lengths) * max(lengths) if self.options.padded else sum(lengths)

    def _pack(self, step: int, ranks: int) -> list[MicroBatch]:
        return _balanced(self.batch(step), self.lengths, self.options, ranks)

    def _shuffle(self, epoch: int) -> MicroBatch:
        seed = self.options.seed
        keys = [xxh3_64_intdigest(struct.pack("<QQ", epoch, row), seed) for row in range(len(self.lengths))]
        return tuple(sorted(range(len(keys)), key=keys.__getitem__))


def _balanced(rows: MicroBatch, lengths: Sequence[int], options: ScheduleOptions, ranks: int) -> list[MicroBatch]:
    """Pack rows into as few micro-batches as the limits allow, balanced and equally many per rank, heaviest first."""
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    most_rows = options.max_rows or len(rows)
    count = max(-(-sum(lengths[row] for row in rows) // options.max_tokens), -(-len(rows) // most_rows))
    count = -(-count // ranks) * ranks
    while (bins := _fill(ordered, lengths, min(count, len(rows)), options, most_rows)) is None:
        count += ranks
    return bins


def _fill(
    ordered: Sequence[int], lengths: Sequence[int], count: int, options: ScheduleOptions, most_rows: int
) -> list[MicroBatch] | None:
    """Put each row, longest first, into the lightest of `count` micro-batches; return None if a row does not fit."""
    micro_batches: list[list[int]] = [[] for _ in range(count)]
    weights = [0] * count
    not_full = [(0, number) for number in range(count)]
    heapify(not_full)
    for row in ordered:
        if not not_full:
            return None
        weight, number = heappop(not_full)
        micro_batch = micro_batches[number]
        micro_batch.append(row)
        weights[number] = len(micro_batch) * lengths[micro_batch[0]] if options.padded else weight + lengths[row]
        if weights[number] > options.max_tokens:
            return None
        if len(micro_batch) < most_rows:
            heappush(not_full, (weights[number], number))
    heaviest_first = sorted(range(count), key=lambda number: (-weights[number], number))
    return [tuple(micro_batches[number]) for number in heaviest_first]

"""The batch schedule: every row once per epoch, limits kept, and the same result for the same lengths and options."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ConvkitError
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions

LIMIT = 100


def options(**given: Any) -> ScheduleOptions:
    return ScheduleOptions(**{"epochs": 2, "batch_size": 8, "max_tokens": LIMIT, **given})


def filled(schedule: BatchSchedule, micro_batch: tuple[int, ...]) -> int:
    """Tokens that go through the model, padding included."""
    lengths = [schedule.lengths[row] for row in micro_batch]
    return len(lengths) * max(lengths) if schedule.options.padded else sum(lengths)


@st.composite
def schedules(draw: st.DrawFn) -> BatchSchedule:
    lengths = draw(st.lists(st.integers(1, LIMIT), min_size=1, max_size=40))
    chosen = ScheduleOptions(
        epochs=draw(st.integers(1, 3)),
        batch_size=draw(st.integers(1, 12)),
        max_tokens=draw(st.integers(max(lengths), 3 * LIMIT)),
        max_rows=draw(st.none() | st.integers(1, 4)),
        seed=draw(st.integers(0, 2**32)),
        padded=draw(st.booleans()),
    )
    return BatchSchedule(lengths, chosen)


@given(schedules(), st.integers(1, 5))
def test_every_row_is_trained_on_once_per_epoch_within_the_limits(schedule: BatchSchedule, ranks: int) -> None:
    size, count = schedule.options.batch_size, len(schedule.lengths)
    for epoch in range(schedule.options.epochs):
        seen: Counter[int] = Counter()
        for place in range(schedule.steps_per_epoch):
            step = epoch * schedule.steps_per_epoch + place
            micro_batches = [schedule.micro_batches(step, rank, ranks) for rank in range(ranks)]
            rows = list(chain(*chain(*micro_batches)))
            assert sorted(rows) == sorted(schedule.batch(step))
            assert len(rows) == min(size, count - place * size)
            counts = [len(found) for found in micro_batches]
            assert max(counts) - min(counts) <= (len(rows) < ranks or len(rows) % ranks > 0)
            for micro_batch in chain(*micro_batches):
                assert micro_batch
                assert filled(schedule, micro_batch) <= schedule.options.max_tokens
                assert schedule.options.max_rows is None or len(micro_batch) <= schedule.options.max_rows
            seen.update(rows)
        assert seen == Counter(range(count))
    assert schedule.rows == count * schedule.options.epochs


@given(schedules())
def test_the_order_depends_only_on_seed_and_epoch(schedule: BatchSchedule) -> None:
    again = BatchSchedule(list(schedule.lengths), schedule.options)
    late = [again.batch(step) for step in reversed(range(schedule.steps))]  # computed in another order
    assert late[::-1] == [schedule.batch(step) for step in range(schedule.steps)]
    assert again.digest == schedule.digest


@given(schedules(), st.integers(1, 3))
def test_the_heaviest_micro_batch_is_the_heaviest_of_all_ranks(schedule: BatchSchedule, ranks: int) -> None:
    micro_batches = [
        schedule.micro_batches(step, rank, ranks) for step in range(schedule.steps) for rank in range(ranks)
    ]
    assert filled(schedule, schedule.heaviest(ranks)) == max(
        filled(schedule, micro_batch) for found in micro_batches for micro_batch in found
    )


@given(schedules(), st.integers(1, 3))
def test_rounds_is_the_largest_number_of_micro_batches_of_a_rank(schedule: BatchSchedule, ranks: int) -> None:
    for step in range(schedule.steps):
        counts = [len(schedule.micro_batches(step, rank, ranks)) for rank in range(ranks)]
        assert max(counts) == schedule.rounds(step, ranks)
        assert max(counts) - min(counts) <= 1


def test_a_schedule_is_the_same_in_every_version() -> None:
    schedule = BatchSchedule([30, 60, 20, 50, 40, 10], options(batch_size=4, seed=7))
    assert [schedule.batch(step) for step in range(schedule.steps)] == [(3, 5, 0, 1), (2, 4), (0, 3, 2, 4), (5, 1)]
    assert schedule.micro_batches(0) == ((3, 0), (1, 5))


def test_epochs_and_seeds_give_different_orders() -> None:
    lengths = [1] * 50
    schedule = BatchSchedule(lengths, options(batch_size=50))
    other = BatchSchedule(lengths, options(batch_size=50, seed=1))
    assert len({schedule.batch(0), schedule.batch(1), other.batch(0), tuple(range(50))}) == 4


def test_micro_batches_are_few_and_balanced() -> None:
    schedule = BatchSchedule([50, 50, 25, 25, 25, 25], options(epochs=1, batch_size=6))
    assert list(map(schedule.tokens, schedule.micro_batches(0))) == [100, 100]
    assert [list(map(schedule.tokens, schedule.micro_batches(0, rank, 2))) for rank in range(2)] == [[100], [100]]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"batch_size": 9},
        {"max_tokens": 101},
        {"max_rows": 2},
        {"epochs": 3},
        {"padded": True},
        {"dropped": 1},
    ],
)
def test_the_digest_depends_on_every_option(change: dict[str, Any]) -> None:
    assert BatchSchedule([1, 2], options(**change)).digest != BatchSchedule([1, 2], options()).digest


def test_the_digest_knows_every_length() -> None:
    assert BatchSchedule([1, 2], options()).digest != BatchSchedule([2, 1], options()).digest


def test_no_rows_and_overlong_rows_are_refused() -> None:
    with pytest.raises(ConvkitError, match="no row to train on"):
        BatchSchedule([], options())
    with pytest.raises(ConvkitError, match=r"Row 2 has 101 tokens, more than --max_tokens 100\."):
        BatchSchedule([1, 101], options())

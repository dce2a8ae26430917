"""The plan: every row once an epoch, no pack beyond its limits, and nothing but lengths and options decide."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.errors import ConvkitError
from convkit.train.data.schedule import Plan, PlanOptions

LIMIT = 100


def options(**given: Any) -> PlanOptions:
    return PlanOptions(**{"epochs": 2, "batch_size": 8, "max_tokens": LIMIT, **given})


def filled(plan: Plan, pack: tuple[int, ...]) -> int:
    """Tokens that go through the model, padding included."""
    lengths = [plan.lengths[row] for row in pack]
    return len(lengths) * max(lengths) if plan.options.padded else sum(lengths)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    lengths = draw(st.lists(st.integers(1, LIMIT), min_size=1, max_size=40))
    chosen = PlanOptions(
        epochs=draw(st.integers(1, 3)),
        batch_size=draw(st.integers(1, 12)),
        max_tokens=draw(st.integers(max(lengths), 3 * LIMIT)),
        max_rows=draw(st.none() | st.integers(1, 4)),
        seed=draw(st.integers(0, 2**32)),
        padded=draw(st.booleans()),
    )
    return Plan(lengths, chosen)


@given(plans(), st.integers(1, 5))
def test_every_row_once_an_epoch_and_no_pack_beyond_its_limits(plan: Plan, ranks: int) -> None:
    size, count = plan.options.batch_size, len(plan.lengths)
    for epoch in range(plan.options.epochs):
        seen: Counter[int] = Counter()
        for place in range(plan.steps_per_epoch):
            step = epoch * plan.steps_per_epoch + place
            packs = [plan.packs(step, rank, ranks) for rank in range(ranks)]
            rows = list(chain(*chain(*packs)))
            assert sorted(rows) == sorted(plan.batch(step))
            assert len(rows) == min(size, count - place * size)
            assert max(map(len, packs)) - min(map(len, packs)) <= (len(rows) < ranks or len(rows) % ranks > 0)
            for pack in chain(*packs):
                assert pack
                assert filled(plan, pack) <= plan.options.max_tokens
                assert plan.options.max_rows is None or len(pack) <= plan.options.max_rows
            seen.update(rows)
        assert seen == Counter(range(count))
    assert plan.rows == count * plan.options.epochs


@given(plans())
def test_the_order_is_of_the_seed_and_the_epoch_alone(plan: Plan) -> None:
    again = Plan(list(plan.lengths), plan.options)
    late = [again.batch(step) for step in reversed(range(plan.steps))]  # asked for in another order
    assert late[::-1] == [plan.batch(step) for step in range(plan.steps)]
    assert again.digest == plan.digest


@given(plans(), st.integers(1, 3))
def test_the_heaviest_pack_is_the_heaviest_of_all_ranks(plan: Plan, ranks: int) -> None:
    packs = [plan.packs(step, rank, ranks) for step in range(plan.steps) for rank in range(ranks)]
    assert filled(plan, plan.heaviest(ranks)) == max(filled(plan, pack) for found in packs for pack in found)


@given(plans(), st.integers(1, 3))
def test_rounds_are_the_packs_of_the_rank_that_has_most(plan: Plan, ranks: int) -> None:
    for step in range(plan.steps):
        counts = [len(plan.packs(step, rank, ranks)) for rank in range(ranks)]
        assert max(counts) == plan.rounds(step, ranks)
        assert max(counts) - min(counts) <= 1


def test_a_plan_is_the_same_in_every_version() -> None:
    plan = Plan([30, 60, 20, 50, 40, 10], options(batch_size=4, seed=7))
    assert [plan.batch(step) for step in range(plan.steps)] == [(3, 5, 0, 1), (2, 4), (0, 3, 2, 4), (5, 1)]
    assert plan.packs(0) == ((3, 0), (1, 5))


def test_epochs_and_seeds_have_their_own_orders() -> None:
    lengths = [1] * 50
    plan, other = Plan(lengths, options(batch_size=50)), Plan(lengths, options(batch_size=50, seed=1))
    assert len({plan.batch(0), plan.batch(1), other.batch(0), tuple(range(50))}) == 4


def test_packs_are_few_and_of_like_weights() -> None:
    plan = Plan([50, 50, 25, 25, 25, 25], options(epochs=1, batch_size=6))
    assert [plan.tokens(pack) for pack in plan.packs(0)] == [100, 100]
    assert [[plan.tokens(pack) for pack in plan.packs(0, rank, 2)] for rank in range(2)] == [[100], [100]]


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
def test_the_digest_knows_every_option(change: dict[str, Any]) -> None:
    assert Plan([1, 2], options(**change)).digest != Plan([1, 2], options()).digest


def test_the_digest_knows_every_length() -> None:
    assert Plan([1, 2], options()).digest != Plan([2, 1], options()).digest


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ConvkitError, match="no row to train on"):
        Plan([], options())
    with pytest.raises(ConvkitError, match=r"Row 2 has 101 tokens, more than --max_tokens 100\."):
        Plan([1, 101], options())

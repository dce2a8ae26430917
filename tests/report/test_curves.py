"""Curves: downsampling that keeps peaks, an unbiased moving average, and axes with round numbers."""

import math

from hypothesis import given
from hypothesis import strategies as st

from convkit.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, downsample, make_chart, moving_average, ticks

NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False)


@given(st.lists(NUMBERS, max_size=400), st.integers(4, 60))
def test_downsampled_curves_keep_their_ends_and_extremes(values: list[float], most: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    found = downsample(points, most)
    assert len(found) <= most
    assert sorted(set(found)) == found
    assert set(found) <= set(points)
    if points:
        assert (found[0], found[-1]) == (points[0], points[-1])
        heights = [y for _, y in found]
        assert (min(heights), max(heights)) == (min(values), max(values))
    if len(points) <= most:
        assert found == points


def test_downsampling_keeps_a_spike_of_each_interval() -> None:
    points = [(float(x), float(x % 100 == 50)) for x in range(10_000)]
    assert sum(y for _, y in downsample(points, 402)) == 100


@given(NUMBERS, st.integers(40, 300))
def test_the_moving_average_of_a_constant_is_the_constant(value: float, count: int) -> None:
    found = moving_average([(float(x), value) for x in range(count)])
    assert len(found) == count
    assert all(math.isclose(y, value, rel_tol=1e-9, abs_tol=1e-9) for _, y in found)


@given(st.lists(NUMBERS, min_size=40, max_size=300))
def test_the_moving_average_stays_between_the_extremes(values: list[float]) -> None:
    found = moving_average([(float(x), y) for x, y in enumerate(values)])
    slack = 1e-9 * max(map(abs, values))
    assert all(min(values) - slack <= y <= max(values) + slack for _, y in found)


def test_short_curves_have_no_moving_average() -> None:
    assert moving_average([(0.0, 1.0)] * 39) == []


@given(NUMBERS, NUMBERS)
def test_ticks_enclose_their_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] >= high - 1e-9 * abs(high)
    assert found == sorted(set(found))


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.integers(0, 1000))
def test_curves_are_drawn_within_the_axes(values: list[float], first: int) -> None:
    drawn = make_chart("Loss", {"Loss": [(float(first + x), y) for x, y in enumerate(values)]}, smooth=True)
    assert len(drawn.lines) == 1 + (len(values) >= 40)
    for line in drawn.lines:
        for x, y in line.points:
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


def test_the_label_of_the_last_step_fits_into_the_margin() -> None:
    place, label = make_chart("Loss", {"Loss": [(0.0, 1.0), (100_000.0, 0.0)]}).x_ticks[-1]
    assert (place, label) == (WIDTH - RIGHT, "100,000")
    assert 6.7 * len(label) <= 2 * RIGHT  # font of 12 pixels, centred

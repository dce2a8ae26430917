"""Curves of any length as a bounded number of points, from which nothing that stands out is missing."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10

Point = tuple[float, float]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 64, 24, 12, 28
"""Of a chart and the margins around its curves, in units of its own."""
MAX_POINTS = 600
_SPANS = 20
"""A smoothed curve forgets after about this part of the run."""


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many points: the first, the last, and of each stretch between them the lowest and the highest.

    Args:
        points: in the order of the curve.
        most: four or more.
    """
    if len(points) <= most:
        return list(points)
    stretches, inner = (most - 2) // 2, len(points) - 2
    bounds = [1 + inner * number // stretches for number in range(stretches + 1)]
    kept = [0]
    for first, end in pairwise(bounds):
        span = range(first, end)
        extremes = (min(span, key=lambda i: points[i][1]), max(span, key=lambda i: points[i][1])) if span else ()
        kept += sorted(set(extremes))
    return [points[number] for number in [*kept, len(points) - 1]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The exponential moving average, without the pull of its start towards zero; nothing of a short curve."""
    span = len(points) // _SPANS
    if span < 2:
        return []
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    found = []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1
        found.append((x, total / weight))
    return found


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from below `low` to above `high`, two or more."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    power = 10.0 ** floor(log10((high - low) / about))
    step = power * [1, 2, 5, 10][min(bisect_left([1, 2, 5, 10], (high - low) / about / power), 3)]
    first = floor(low / step)
    found = [first * step]
    while found[-1] < high:
        found.append((first + len(found)) * step)
    return found


def number(value: float) -> str:
    """Four digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """A curve, ready to be drawn."""

    kind: str
    """raw, smoothed or series-N."""
    name: str
    points: list[Point]
    """In units of the chart."""

    @property
    def path(self) -> str:
        """As an SVG polyline has it."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """One picture of one or more curves over steps."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    summary: str
    """What the picture shows, in words."""


def chart(title: str, series: dict[str, Sequence[Point]], *, smooth: bool = False, marked: bool = False) -> Chart:
    """A chart of curves by name.

    Args:
        series: each of one point or more.
        smooth: show the smoothed course of long ones as well.
        marked: the series are several of equal rank, whose points are few.
    """
    every = [point for points in series.values() for point in points]
    x_ticks = [x for x in ticks(min(x for x, _ in every), max(x for x, _ in every), 6) if x == int(x)]
    y_ticks = ticks(min(y for _, y in every), max(y for _, y in every))
    left, right = min(x_ticks[0], min(x for x, _ in every)), max(x_ticks[-1], max(x for x, _ in every))

    def placed(point: Point) -> Point:
        x, y = point
        across = (x - left) / ((right - left) or 1)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    lines = []
    for place, (name, points) in enumerate(series.items()):
        kind, called = (f"series-{place % 6}", name) if marked else ("raw", "each step")
        lines.append(Line(kind, called, list(map(placed, thin(points)))))
        if smooth and (course := smoothed(points)):
            lines.append(Line("smoothed", "moving average", list(map(placed, thin(course)))))
    return Chart(
        title=title,
        lines=lines,
        x_ticks=[(placed((x, y_ticks[0]))[0], f"{x:,.0f}") for x in x_ticks],
        y_ticks=[(placed((left, y))[1], number(y)) for y in y_ticks],
        summary="; ".join(_told(name if marked else "", points) for name, points in series.items()),
    )


def _told(name: str, points: Sequence[Point]) -> str:
    values = [y for _, y in points]
    range_ = f"from {number(values[0])} to {number(values[-1])}, lowest {number(min(values))}, highest "
    return f"{name}{name and ': '}{range_}{number(max(values))}"

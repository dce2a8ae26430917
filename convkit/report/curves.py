"""Curves of any length as a bounded format_number of points that keeps all peaks."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, log10

Point = tuple[float, float]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 220, 64, 28, 12, 28
"""Size of a chart and margins around its curves, in SVG units."""
MAX_POINTS = 600
_SPANS = 20
"""Number of moving-average spans per run."""


def downsample(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return at most `most` points: the first, the last, and the lowest and highest of each interval between them.

    Args:
        points: in the order of the curve.
        most: four or more.
    """
    if len(points) <= most:
        return list(points)
    intervals, inner = (most - 2) // 2, len(points) - 2
    bounds = [1 + inner * index // intervals for index in range(intervals + 1)]
    kept = [0]
    for first, end in pairwise(bounds):
        span = range(first, end)
        extremes = (min(span, key=lambda i: points[i][1]), max(span, key=lambda i: points[i][1])) if span else ()
        kept += sorted(set(extremes))
    return [points[index] for index in [*kept, len(points) - 1]]


def moving_average(points: Sequence[Point]) -> list[Point]:
    """Return the bias-corrected exponential moving average; nothing for a short curve."""
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
    """Return two or more round numbers from at most `low` to at least `high`."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    power = 10.0 ** floor(log10((high - low) / about))
    step = power * [1, 2, 5, 10][min(bisect_left([1, 2, 5, 10], (high - low) / about / power), 3)]
    first = floor(low / step)
    found = [first * step]
    while found[-1] < high:
        found.append((first + len(found)) * step)
    return found


def format_number(value: float) -> str:
    """Format a format_number with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """A curve in chart coordinates, ready to draw."""

    kind: str
    """CSS class: raw, smoothed or series-N."""
    name: str
    points: list[Point]
    """Points in SVG units of the chart."""

    @property
    def path(self) -> str:
        """Return the points for an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """A chart of one or more curves over steps."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    summary: str
    """Text alternative of the chart."""


@dataclass(frozen=True)
class _Axes:
    """Maps points to chart coordinates, with ticks at round numbers."""

    x_ticks: list[float]
    y_ticks: list[float]
    left: float
    right: float

    def place(self, point: Point) -> Point:
        x, y = point
        across = (x - self.left) / ((self.right - self.left) or 1)
        up = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def place_curve(self, points: Sequence[Point]) -> list[Point]:
        return list(map(self.place, downsample(points)))


def _axes(points: Sequence[Point]) -> _Axes:
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    x_ticks = [x for x in ticks(first, last, 6) if x == int(x)]
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    return _Axes(x_ticks, y_ticks, min(x_ticks[0], first), max(x_ticks[-1], last))


def make_chart(title: str, series: dict[str, Sequence[Point]], *, smooth: bool = False, marked: bool = False) -> Chart:
    """Return a chart of named curves.

    Args:
        title: of the chart.
        series: one or more points for each curve.
        smooth: also draw the moving average of long curves.
        marked: the series are several metrics with few points, which get a colour and markers each.
    """
    axes = _axes([point for points in series.values() for point in points])
    lines = []
    for index, (name, points) in enumerate(series.items()):
        kind, label = (f"series-{index % 6}", name) if marked else ("raw", "each step")
        lines.append(Line(kind, label, axes.place_curve(points)))
        if smooth and (average := moving_average(points)):
            lines.append(Line("smoothed", "moving average", axes.place_curve(average)))
    return Chart(
        title=title,
        lines=lines,
        x_ticks=[(axes.place((x, axes.y_ticks[0]))[0], f"{x:,.0f}") for x in axes.x_ticks],
        y_ticks=[(axes.place((axes.left, y))[1], format_number(y)) for y in axes.y_ticks],
        summary="; ".join(_summary(name if marked else "", points) for name, points in series.items()),
    )


def _summary(name: str, points: Sequence[Point]) -> str:
    values = [y for _, y in points]
    first, last, low, high = map(format_number, (values[0], values[-1], min(values), max(values)))
    return f"{name}{name and ': '}from {first} to {last}, lowest {low}, highest {high}"

"""Draw the charts of a report as one PNG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convkit.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Chart, Line
from convkit.utils.text import printable

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_SCALE, _TITLE = 2, 28
_MAX_TEXT = 80
_INK, _GRID, _PALE = "#1c2024", "#d9dee3", "#bcd4fa"
_SERIES = ("#1f6feb", "#b35900", "#7a3fb0", "#0f766e", "#1a7f37", "#b42318")


def draw_png(charts: Sequence[Chart]) -> bytes:
    """Draw one or more charts below each other, in the colours of the page."""
    from PIL import Image, ImageDraw

    height = _TITLE + HEIGHT
    canvas = Image.new("RGB", (WIDTH * _SCALE, height * _SCALE * len(charts)), "white")
    for place, chart in enumerate(charts):
        _draw(ImageDraw.Draw(canvas), chart, place * height + _TITLE)
    found = io.BytesIO()
    canvas.save(found, "PNG")
    return found.getvalue()


def _draw(draw: "ImageDraw", chart: Chart, top: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12 * _SCALE)

    def at(x: float, y: float) -> tuple[float, float]:
        return x * _SCALE, (top + y) * _SCALE

    for y, label in chart.y_ticks:
        draw.line([at(LEFT, y), at(WIDTH - RIGHT, y)], _GRID)
        draw.text(at(LEFT - 6, y), label, _INK, font, "rm")
    for x, label in chart.x_ticks:
        draw.text(at(x, HEIGHT - BOTTOM / 2), label, _INK, font, "mm")
    names = [(chart.title, _INK)]
    for line in chart.lines:
        colour = _colour(line, len(chart.lines) > 1)
        points = [at(x, y) for x, y in line.points]
        draw.line(points, colour, 2 * _SCALE, "curve")
        if _marked(line):
            for point in points:
                draw.circle(point, 3 * _SCALE, colour)
            names.append((line.name, colour))
    start: float = LEFT
    for name, colour in names:
        text = printable(name[:_MAX_TEXT])
        draw.text(at(start, -_TITLE / 2), text, colour, font, "lm")
        start += (draw.textlength(text, font) / _SCALE) + 16


def _marked(line: Line) -> bool:
    return line.kind.startswith("series") or len(line.points) == 1


def _colour(line: Line, several: bool) -> str:
    """Return the colour of a curve: pale behind its moving average, one per metric otherwise."""
    if line.kind == "raw":
        return _PALE if several else _SERIES[0]
    return _SERIES[0] if line.kind == "smoothed" else _SERIES[int(line.kind[-1])]

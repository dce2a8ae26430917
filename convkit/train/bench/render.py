"""A result for the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from convkit.train.bench.results import Figures
from convkit.train.bench.train import RECIPE, Result


def render(result: Result) -> Iterator[RenderableType]:
    """What was said before the first step; then a column for each contender, and a ratio."""
    for name, figures in result.figures.items():
        yield "\n".join(f"{name}: {line}" for line in figures.preflight)
    about = result.about
    title = (
        f"{about['method']}, {about['workload']}, {about['geometry']} geometry, {about['hardware']['device']}; "
        f"matrix products {_number(result.peak_tflops)} TFLOP/s"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    names = list(result.figures)
    for name in [*names, *(["ratio"] if RECIPE in names else [])]:
        table.add_column(name, justify="right")
    columns = [dict(_lines(figures)) for figures in result.figures.values()]
    for label in columns[0]:
        values = [column[label] for column in columns]
        ratio = [_ratio(*values)] if len(values) > 1 else []
        table.add_row(label, *(_number(value) for value in values), *ratio)
    yield table


def _lines(figures: Figures) -> Iterator[tuple[str, float | None]]:
    yield "images/s", figures.images_a_second
    yield "rows/s", figures.rows_a_second
    yield "tokens/s", figures.tokens_a_second
    yield "rows/s, median step", figures.rows_a_second_median
    yield "TFLOP a row", sum(figures.tflop_a_row.values())
    yield "TFLOP/s", figures.tflop_a_second
    yield "MFU, %", 100 * figures.mfu
    yield "memory, GiB", figures.allocated_gib
    yield "memory reserved, GiB", figures.reserved_gib
    yield "GPU idle, %", None if figures.idle is None else 100 * figures.idle
    yield "packs a step", figures.packs_a_step
    yield "tokens a pack", figures.tokens_a_pack
    yield "step, ms", sum(figures.ms_a_step.values())
    for name, milliseconds in figures.ms_a_step.items():
        yield f"  {name}", milliseconds
    yield "build, s", figures.building_s
    yield "warm up, s", figures.warming_s


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours and theirs else ""

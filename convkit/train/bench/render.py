"""Render the result of `convkit bench train` for the terminal."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from convkit.train.bench.results import Measurement
from convkit.train.bench.train import BenchResult


def render(result: BenchResult) -> Iterator[RenderableType]:
    """Yield the preflight messages, then a table of the measurement."""
    yield "\n".join(result.measurement.preflight)
    about = result.about
    title = (
        f"{about['method']}, {about['workload']}, {about['model_size']} model size, {about['hardware']['device']}; "
        f"matrix products {_number(result.matmul_tflops)} TFLOP/s"
    )
    table = Table("result", title=title, title_justify="left")
    table.add_column("value", justify="right")
    for label, value in _lines(result.measurement):
        table.add_row(label, _number(value))
    yield table


def _lines(measured: Measurement) -> Iterator[tuple[str, float | None]]:
    yield "images/s", measured.images_per_second
    yield "rows/s", measured.rows_per_second
    yield "tokens/s", measured.tokens_per_second
    yield "rows/s, median step", measured.median_rows_per_second
    yield "TFLOP per row", sum(measured.tflop_per_row.values())
    yield "TFLOP/s", measured.tflop_per_second
    yield "MFU, %", 100 * measured.mfu
    yield "peak memory, GiB", measured.allocated_gib
    yield "peak memory reserved, GiB", measured.reserved_gib
    yield "GPU idle, %", None if measured.gpu_idle is None else 100 * measured.gpu_idle
    yield "micro-batches per step", measured.micro_batches_per_step
    yield "tokens per micro-batch", measured.tokens_per_micro_batch
    yield "step, ms", sum(measured.ms_per_step.values())
    for name, milliseconds in measured.ms_per_step.items():
        yield f"  {name}", milliseconds
    yield "build model, s", measured.build_seconds
    yield "warm up, s", measured.warmup_seconds


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"

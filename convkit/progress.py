"""A progress bar on standard error: only on a terminal, and only for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, int | None], None]
"""Called with how much is done and how much there is in all (None: not known)."""

Bars = Callable[[str, str], AbstractContextManager[Progress]]
"""Makes a progress bar from a description and the unit of what is counted."""

PATIENCE_S = 2.0


@contextmanager
def silent(description: str, unit: str) -> Iterator[Progress]:
    """No progress bar."""
    yield lambda done, total: None


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Progress]:
    """Give a function to report progress to; it does nothing where standard error is no terminal.

    Args:
        unit: what is counted, for the rate: "clips", or "B" for bytes.
    """
    if not sys.stderr.isatty():
        with silent(description, unit) as nothing:
            yield nothing
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    counted = DownloadColumn() if unit == "B" else MofNCompleteColumn()
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        TextColumn("{task.fields[unit]}"),
        TransferSpeedColumn() if unit == "B" else Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(description, total=None, unit="" if unit == "B" else unit)
    begun = time.monotonic()

    def update(done: int, total: int | None) -> None:
        if not bar.live.is_started and time.monotonic() - begun > PATIENCE_S:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        bar.stop()

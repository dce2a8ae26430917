"""Progress bars on standard error, for terminals and stages of more than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int | None], None]
"""A callback that takes the number done and the total (None if unknown)."""

Note = Callable[[], str]
"""Returns a text for the end of the bar whenever it is drawn."""


class ProgressBars(Protocol):
    """A factory of progress bars, such as `progress_bar`."""

    def __call__(self, description: str, unit: str, note: Note = str) -> AbstractContextManager[Progress]:
        """Open a progress bar; see `progress_bar` for the arguments."""


SHOW_AFTER_S = 2.0
_OTHER_COLUMNS = 52
"""The terminal columns that everything but the note takes, with a short bar."""


def ignore_progress(done: int, total: int | None) -> None:
    """Do nothing; used where nobody wants progress."""


@contextmanager
def no_progress_bar(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
    """Give a callback that does nothing, without a progress bar."""
    yield ignore_progress


@contextmanager
def progress_bar(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
    """Show a progress bar and give its callback, which does nothing if standard error is not a terminal.

    Args:
        unit: the unit of the counts, such as "clips", or "B" for bytes.
        note: returns a text for the end of the bar.
    """
    if not sys.stderr.isatty():
        yield ignore_progress
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
    from rich.table import Column
    from rich.text import Text

    console = Console(stderr=True)

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    class NoteColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            text = Text(note())
            text.truncate(max(0, console.width - _OTHER_COLUMNS), overflow="ellipsis")
            return text

    counted = DownloadColumn() if unit == "B" else MofNCompleteColumn()
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        TextColumn("{task.fields[unit]}"),
        TransferSpeedColumn() if unit == "B" else RateColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(),
        # On a narrow terminal, the bar becomes shorter.
        NoteColumn(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
    )
    task = bar.add_task(description, total=None, unit="" if unit == "B" else unit)
    started = time.monotonic()
    ended = False

    def update(done: int, total: int | None) -> None:
        if ended:
            return
        if not bar.live.is_started and time.monotonic() - started > SHOW_AFTER_S:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        ended = True
        bar.stop()

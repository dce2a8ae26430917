"""A progress bar on standard error: only on a terminal, and only for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Progress = Callable[[int, int | None], None]
"""Called with how much is done and how much there is in all (None: not known)."""

Note = Callable[[], str]
"""Gives what else is to be shown, whenever the bar is drawn."""


class ProgressBars(Protocol):
    """Makes a progress bar from a description, the unit of what is counted, and what else is shown."""

    def __call__(self, description: str, unit: str, note: Note = str) -> AbstractContextManager[Progress]:
        """See `progress_bar`."""


PATIENCE_S = 2.0
_OTHERS = 52
"""Columns of the terminal that all but the note takes, with a short bar."""


def ignore_progress(done: int, total: int | None) -> None:
    """Tells nobody."""


@contextmanager
def no_progress_bar(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
    """No progress bar."""
    yield ignore_progress


@contextmanager
def progress_bar(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
    """Give a function to report progress to; it does nothing where standard error is no terminal.

    Args:
        unit: what is counted, for the rate: "clips", or "B" for bytes.
        note: stands at the end.
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

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    class Words(ProgressColumn):
        def render(self, task: Task) -> Text:
            text = Text(note())
            text.truncate(max(0, console.width - _OTHERS), overflow="ellipsis")
            return text

    counted = DownloadColumn() if unit == "B" else MofNCompleteColumn()
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        TextColumn("{task.fields[unit]}"),
        TransferSpeedColumn() if unit == "B" else Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(),
        # Where there is too little room, the bar becomes shorter.
        Words(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
    )
    task = bar.add_task(description, total=None, unit="" if unit == "B" else unit)
    begun = time.monotonic()
    ended = False

    def update(done: int, total: int | None) -> None:
        if ended:
            return
        if not bar.live.is_started and time.monotonic() - begun > PATIENCE_S:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        ended = True
        bar.stop()

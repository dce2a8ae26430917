"""Progress on standard error: bars on a terminal after two seconds, and a log line every 30 seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
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
LOG_EVERY_S = 30.0
_OTHER_COLUMNS = 52
"""The terminal columns that everything but the note takes, with a short bar."""


def ignore_progress(done: int, total: int | None) -> None:
    """Do nothing; used where nobody wants progress."""


@contextmanager
def no_progress_bar(description: str, unit: str, note: Note = str) -> Iterator[Progress]:
    """Give a callback that does nothing, without a progress bar."""
    yield ignore_progress


def progress_bar(description: str, unit: str, note: Note = str) -> AbstractContextManager[Progress]:
    """Show a progress bar on a terminal, or else log a line now and then; give the callback that updates it.

    Args:
        unit: the unit of the counts, such as "clips", or "B" for bytes.
        note: returns a text for the end of the bar or line.
    """
    return (_terminal_bar if sys.stderr.isatty() else progress_log)(description, unit, note)


@contextmanager
def progress_log(
    description: str, unit: str, note: Note = str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Log a line to standard error every 30 seconds, and a last one if there was any; give the callback."""
    log = _ProgressLog(description, unit, note, clock)
    yield log.update
    log.finish()


class _ProgressLog:
    """Logs the counts of one stage."""

    def __init__(self, description: str, unit: str, note: Note, clock: Callable[[], float]) -> None:
        self._description, self._note, self._clock = description, note, clock
        self._unit, self._per_unit = ("MB", 1e6) if unit == "B" else (unit, 1.0)
        self._started = self._logged = clock()
        self._done = 0
        self._total: int | None = None
        self._first: tuple[float, int] | None = None
        """The time and count of the first update; the speed is measured from there, as a resumed stage skips ahead."""

    def update(self, done: int, total: int | None) -> None:
        """Log a line if the last one is old enough."""
        now = self._clock()
        self._done, self._total, self._first = done, total, self._first or (now, done)
        if now - self._logged >= LOG_EVERY_S:
            self._logged = now
            left = (total - done) / speed if (speed := self._speed(now)) and total else 0
            self._log(now, f"{_duration(left)} left" if left > 0 else "")

    def finish(self) -> None:
        """Log the last line."""
        if self._logged > self._started:
            now = self._clock()
            self._log(now, f"finished in {_duration(now - self._started)}")

    def _log(self, now: float, time_text: str) -> None:
        of_total = f" of {self._quantity(self._total)}" if self._total else ""
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        counts = f"{self._quantity(self._done)}{of_total} {self._unit}{share}"
        speed = self._speed(now)
        parts = [counts, f"{self._quantity(speed)} {self._unit}/s" if speed else "", time_text, self._note()]
        print(f"{self._description}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)

    def _speed(self, now: float) -> float:
        """Return the units per second since the first update."""
        began, before = self._first or (now, 0)
        return (self._done - before) / (now - began) if now > began else 0.0

    def _quantity(self, count: float) -> str:
        scaled = count / self._per_unit
        return f"{scaled:,.0f}" if scaled >= 10 or scaled == int(scaled) else f"{scaled:,.1f}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _terminal_bar(description: str, unit: str, note: Note) -> Iterator[Progress]:
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

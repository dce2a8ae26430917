"""metrics.jsonl: one line for each step of a run, whatever it was interrupted by."""

import json
import math
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic_core import from_json

from convkit.errors import ConvkitError
from convkit.train.config import Config
from convkit.train.data.index import Index
from convkit.train.data.schedule import BatchSchedule
from convkit.train.distributed.world import World
from convkit.train.metrics.throughput import Throughput
from convkit.train.metrics.trackers import reporters
from convkit.train.trainer import StepResult
from convkit.utils.files import write_atomic

METRICS = "metrics.jsonl"


class Log:
    """Writes on the first process alone.

    Args:
        first: the step that comes next; lines of later ones, of a run that was killed, are removed.
    """

    def __init__(self, config: Config, first: int, throughput: Throughput, world: World) -> None:
        self._path, self._first, self._writes = config.output_dir / METRICS, first, world.first
        self._config, self._meter = config, throughput

    def __enter__(self) -> Self:
        if self._writes:
            if self._path.exists():
                write_atomic(self._path, _until(self._first, self._path), self._path.parent)
            self._others = ExitStack()
            self._reporters = self._others.enter_context(reporters(self._config, self._first))
            self._file = self._path.open("a")
        return self

    def step(self, step: int, schedule: BatchSchedule, index: Index, outcome: StepResult, seconds: float) -> None:
        """Add a line; steps are counted from 1 in it."""
        if not self._writes:
            return
        rows = schedule.batch(step)
        record = {
            "step": step + 1,
            "epoch": round((step + 1) / schedule.steps_per_epoch, 4),
            "loss": outcome.loss,
            "learning_rate": outcome.learning_rate,
            "grad_norm": outcome.grad_norm if math.isfinite(outcome.grad_norm) else None,
            "rows": len(rows),
            "tokens": schedule.tokens(rows),
            "supervised_tokens": sum(index.supervised[row] for row in rows),
            "seconds": round(seconds, 4),
            **self._meter.step(step, outcome.loss, seconds),
            **({"skipped": True} if outcome.skipped else {}),
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for report in self._reporters:
            report(record)

    def evaluated(self, step: int, values: dict[str, float]) -> None:
        """Pass on the scores of an evaluation, which metrics.jsonl has no lines for."""
        if self._writes:
            for report in self._reporters:
                report({"step": step, **values})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writes:
            self._file.close()
            self._others.close()


def _until(step: int, path: Path) -> bytes:
    """The lines up to a step, but for a last one that a kill has torn.

    Raises:
        ConvkitError: another one is damaged.
    """
    kept = bytearray()
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            if line.endswith(b"\n") and from_json(line)["step"] <= step:
                kept += line
        except (ValueError, TypeError, KeyError):
            raise ConvkitError(f"{path}:{number} is no line of a run. Remove it: training does without.") from None
    return bytes(kept)

"""Metrics log: metrics.jsonl has exactly one line per step, also after interruptions."""

import json
import math
from collections.abc import Sequence
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
from convkit.train.metrics.trackers import Tracker, trackers
from convkit.train.trainer import StepResult
from convkit.utils.files import write_atomic

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writes metrics.jsonl and feeds the experiment trackers, on rank 0 only.

    Args:
        first: completed steps; lines of later steps, left by a killed run, are removed.
        also: more trackers, besides those of `--report_to`.
    """

    def __init__(
        self, config: Config, first: int, throughput: Throughput, world: World, also: Sequence[Tracker] = ()
    ) -> None:
        self._path, self._first, self._writes = config.output_dir / METRICS, first, world.first
        self._config, self._throughput, self._also = config, throughput, also

    def __enter__(self) -> Self:
        if self._writes:
            if self._path.exists():
                write_atomic(self._path, _lines_until(self._first, self._path), self._path.parent)
            self._resources = ExitStack()
            self._trackers = [*self._resources.enter_context(trackers(self._config, self._first)), *self._also]
            self._file = self._path.open("a")
        return self

    def step(self, step: int, schedule: BatchSchedule, index: Index, result: StepResult, seconds: float) -> None:
        """Write the line of a step, which counts steps from 1."""
        if not self._writes:
            return
        rows = schedule.batch(step)
        record = {
            "step": step + 1,
            "epoch": round((step + 1) / schedule.steps_per_epoch, 4),
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "rows": len(rows),
            "tokens": schedule.tokens(rows),
            "supervised_tokens": sum(index.supervised[row] for row in rows),
            "seconds": round(seconds, 4),
            **self._throughput.step(step, result.loss, seconds),
            **({"skipped": True} if result.skipped else {}),
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for track in self._trackers:
            track(record)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Send the scores of an evaluation to the trackers; metrics.jsonl has no lines for them."""
        if self._writes:
            for track in self._trackers:
                track({"step": step, **values})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writes:
            self._file.close()
            self._resources.close()


def _lines_until(step: int, path: Path) -> bytes:
    """Return the lines up to a step, without a last line that a kill left incomplete.

    Raises:
        ConvkitError: another line is damaged.
    """
    kept = bytearray()
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            if line.endswith(b"\n") and from_json(line)["step"] <= step:
                kept += line
        except (ValueError, TypeError, KeyError):
            raise ConvkitError(
                f"{path}:{number} is not a line of metrics. Remove it; training does not need it."
            ) from None
    return bytes(kept)

"""Log lines of training steps, for output without a progress bar."""

from collections.abc import Callable
from typing import Any


class StepLog:
    """Logs the loss, the learning rate and the throughput every few steps, and after the last.

    Loss and throughput are means over the steps since the last line. An instance is a `Tracker`: call it with each line
    of metrics.jsonl.

    Args:
        every: steps per line.
        steps: steps of the whole run.
        log: receives the lines.
    """

    def __init__(self, every: int, steps: int, log: Callable[[str], None]) -> None:
        self._every, self._steps, self._log = every, steps, log
        self._records: list[dict[str, Any]] = []

    def __call__(self, record: dict[str, Any]) -> None:
        if "learning_rate" not in record:  # the scores of an evaluation
            return
        self._records.append(record)
        step = record["step"]
        if step % self._every and step != self._steps:
            return
        loss = sum(record["loss"] for record in self._records) / len(self._records)
        images, seconds = (sum(record[name] for record in self._records) for name in ("images", "seconds"))
        rate = f"{images / seconds:,.2f}" if seconds else "-"
        self._log(
            f"step {step:,} of {self._steps:,}: loss {loss:.4f}, learning rate {record['learning_rate']:.2e}, "
            f"{rate} images/s"
        )
        self._records.clear()

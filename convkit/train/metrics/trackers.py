"""Experiment trackers: send metrics to TensorBoard and Weights & Biases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.config import Config
from convkit.utils.files import write_atomic

Tracker = Callable[[dict[str, Any]], None]
"""A function that takes a line of metrics.jsonl."""


@contextmanager
def _tensorboard(config: Config, first: int) -> Iterator[Tracker]:
    from torch.utils.tensorboard.writer import SummaryWriter

    # Points that a killed run wrote after its last checkpoint are dropped.
    writer = SummaryWriter(str(config.output_dir / "tensorboard"), purge_step=first + 1)

    def track(record: dict[str, Any]) -> None:
        for name, value in _curves(record).items():
            writer.add_scalar(name, value, record["step"])

    try:
        yield track
    finally:
        writer.close()


@contextmanager
def _wandb(config: Config, first: int) -> Iterator[Tracker]:
    import wandb

    run = wandb.init(
        project="convkit",
        dir=config.output_dir,
        name=config.output_dir.name,
        id=_run_id(config.output_dir, first),
        resume="allow",
        config=config.to_json(),
    )
    try:
        yield lambda record: run.log(_curves(record), step=record["step"])
    finally:
        run.finish()


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb}


@contextmanager
def trackers(config: Config, first: int) -> Iterator[Sequence[Tracker]]:
    """Open the trackers of `--report_to`.

    Args:
        first: completed steps; curves continue after them.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_TRACKERS[name](config, first)) for name in _chosen(config)]


def require(config: Config) -> None:
    """Check that the trackers of `--report_to` are installed, before the run starts.

    Raises:
        ConvkitError: a tracker is unknown or not installed.
    """
    for name in _chosen(config):
        if name not in _TRACKERS:
            raise ConvkitError(f"--report_to does not know {name!r}. Choose from: {', '.join(_TRACKERS)}.")
        try:
            import_module(name)
        except ImportError:
            raise MissingExtra(name, name, f"--report_to {name}") from None


def _chosen(config: Config) -> list[str]:
    names = [name.strip() for name in config.report_to.split(",")]
    return [name for name in names if name not in ("", "none")]


def _curves(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "step" and isinstance(value, int | float)}


def _run_id(run: Path, first: int) -> str:
    """Return a new id for a run that starts, and the saved id for one that resumes."""
    file = run / "wandb-id"
    if not first or not file.exists():
        write_atomic(file, uuid4().hex.encode(), run)
    return file.read_text()

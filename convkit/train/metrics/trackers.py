"""Curves of a run elsewhere than in metrics.jsonl: TensorBoard, and Weights & Biases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.config import Config
from convkit.utils.files import write_atomic

Reporter = Callable[[dict[str, Any]], None]
"""Takes a line of metrics.jsonl."""


@contextmanager
def _tensorboard(config: Config, first: int) -> Iterator[Reporter]:
    from torch.utils.tensorboard.writer import SummaryWriter

    # What a killed run wrote after its last checkpoint is dropped.
    writer = SummaryWriter(str(config.output_dir / "tensorboard"), purge_step=first + 1)

    def report(record: dict[str, Any]) -> None:
        for name, value in _curves(record).items():
            writer.add_scalar(name, value, record["step"])

    try:
        yield report
    finally:
        writer.close()


@contextmanager
def _wandb(config: Config, first: int) -> Iterator[Reporter]:
    import wandb

    run = wandb.init(
        project="convkit",
        dir=config.output_dir,
        name=config.output_dir.name,
        id=_run_id(config.output_dir, first),
        resume="allow",
        config=config.recorded(),
    )
    try:
        yield lambda record: run.log(_curves(record), step=record["step"])
    finally:
        run.finish()


_TABLE = {"tensorboard": _tensorboard, "wandb": _wandb}


@contextmanager
def reporters(config: Config, first: int) -> Iterator[Sequence[Reporter]]:
    """Open those that `--report_to` names.

    Args:
        first: steps that are done; curves go on after them.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(_TABLE[name](config, first)) for name in _chosen(config)]


def require(config: Config) -> None:
    """Find out before anything else whether `--report_to` can be had.

    Raises:
        ConvkitError: one is not known, or not installed.
    """
    for name in _chosen(config):
        if name not in _TABLE:
            raise ConvkitError(f"--report_to does not know {name!r}. Name some of: {', '.join(_TABLE)}.")
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
    """A new one for a run that begins, wherever it is; its own for one that is gone on with."""
    file = run / "wandb-id"
    if not first or not file.exists():
        write_atomic(file, uuid4().hex.encode(), run)
    return file.read_text()

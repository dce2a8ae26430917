"""Checkpoint dry run: save, reload and remove one before the first step, so that errors show within minutes."""

import shutil
import tempfile
import time
from pathlib import Path

from convkit.errors import ConvkitError
from convkit.train.checkpoint import store
from convkit.train.checkpoint.state import RunState
from convkit.train.config import Config
from convkit.train.models.family import ModelFamily
from convkit.train.setup.precision import compute_dtype
from convkit.train.trainer import Trainer

GB = 10**9


def check_checkpoint(trainer: Trainer, family: ModelFamily) -> str:
    """Save and reload a checkpoint after the preflight, on all ranks; return a description of the result.

    Raises:
        ConvkitError: the checkpoint cannot be loaded again, or the disk is too small for all that will be kept.
        OSError: it cannot be written.
    """
    config, world, began = trainer.config, trainer.world, time.monotonic()
    folder = world.from_first(lambda: Path(tempfile.mkdtemp(prefix=store.CHECK_PREFIX, dir=config.output_dir)))
    try:
        state = RunState(step=0, rows=0, fingerprint={}, processes=world.size)
        path = store.save(
            folder, state, trainer.sharding, family, first=world.first, dtype=compute_dtype(config), keep=1
        )
        world.wait()  # until rank 0 has written it
        store.read_state(path)
        store.load(path, trainer.sharding)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        world.wait()  # until all ranks have read it
    finally:
        if world.first:
            shutil.rmtree(folder)
    seconds = time.monotonic() - began
    free = world.from_first(lambda: _require_space(config, size, trainer.schedule.steps))
    return f"checkpoint: {size / GB:.2f} GB, saved and reloaded in {seconds:.1f} s; {free / GB:,.0f} GB are free"


def _require_space(config: Config, size: int, steps: int) -> int:
    """Check that all checkpoints kept at once fit on the disk; return the free bytes."""
    free = shutil.disk_usage(config.output_dir).free
    needed = size * min(config.save_total_limit + 1, -(-steps // config.save_steps))
    if free < needed:
        raise ConvkitError(
            f"A checkpoint takes {size / GB:.2f} GB; {needed / GB:.2f} GB are needed in {config.output_dir}, where "
            f"{free / GB:.2f} GB are free. Old checkpoints are removed only after a new one is complete. Make room, or "
            "lower --save_total_limit."
        )
    return free

"""A checkpoint before the first step, saved, reloaded and removed: what cannot be written is known in minute one."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from convkit.errors import ConvkitError
from convkit.train.checkpoint import store
from convkit.train.config import Config
from convkit.train.models.family import ModelFamily
from convkit.train.setup.precision import compute_dtype
from convkit.train.trainer import Trainer

GB = 10**9


def trial(trainer: Trainer, family: ModelFamily) -> str:
    """Save and reload, after preflight; all processes take part. Returns what was seen, in words.

    Raises:
        ConvkitError: what was saved cannot be loaded, or there is too little room for it.
        OSError: it cannot be written.
    """
    config, world, began = trainer.config, trainer.world, time.monotonic()
    folder = world.from_first(lambda: Path(tempfile.mkdtemp(prefix=store.TRIAL, dir=config.output_dir)))
    try:
        state: dict[str, Any] = {"step": 0, "rows": 0, "of": {}, "processes": world.size}
        path = store.save(
            folder, state, trainer.sharding, family, first=world.first, dtype=compute_dtype(config), keep=1
        )
        world.wait()  # for the first process, which writes
        store.read_state(path)
        store.load(path, trainer.sharding)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        world.wait()  # for those that still read
    finally:
        if world.first:
            shutil.rmtree(folder)
    seconds = time.monotonic() - began
    free = world.from_first(lambda: _require_room(config, size, trainer.schedule.steps))
    return f"checkpoint: {size / GB:.2f} GB, saved and reloaded in {seconds:.1f} s; {free / GB:,.0f} GB are free"


def _require_room(config: Config, size: int, steps: int) -> int:
    """Room for all checkpoints that are there at once; returns the bytes that are free."""
    free = shutil.disk_usage(config.output_dir).free
    needed = size * min(config.save_total_limit + 1, -(-steps // config.save_steps))
    if free < needed:
        raise ConvkitError(
            f"A checkpoint takes {size / GB:.2f} GB; {needed / GB:.2f} GB are needed in {config.output_dir}, where "
            f"{free / GB:.2f} GB are free: the old ones are removed only once the new one is whole. Make room, or "
            "lower --save_total_limit."
        )
    return free

"""A checkpoint before the first step, saved, reloaded and removed: what cannot be written is known in minute one."""

import shutil
import tempfile
import time
from pathlib import Path

from convkit.errors import ConvkitError
from convkit.train import checkpoint
from convkit.train.loop import Trainer
from convkit.train.models.base import Adapter
from convkit.train.precision import dtype

GB = 10**9


def trial(trainer: Trainer, adapter: Adapter) -> str:
    """Save and reload; after preflight, on the process that writes. Returns what was seen, in words.

    Raises:
        ConvkitError: what was saved cannot be loaded.
        OSError: it cannot be written.
    """
    config, began = trainer.config, time.monotonic()
    with tempfile.TemporaryDirectory(prefix=checkpoint.TRIAL, dir=config.output_dir) as folder:
        state = {"step": 0, "rows": 0, "of": {}, "processes": trainer.world.size}
        path = checkpoint.save(
            Path(folder), state, trainer.model, trainer.optimizer, adapter, dtype=dtype(config), keep=1
        )
        checkpoint.read_state(path)
        checkpoint.load(path, trainer.model, trainer.optimizer)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    seconds = time.monotonic() - began
    free = shutil.disk_usage(config.output_dir).free
    needed = size * min(config.save_total_limit + 1, -(-trainer.plan.steps // config.save_steps))
    if free < needed:
        raise ConvkitError(
            f"A checkpoint takes {size / GB:.2f} GB; {needed / GB:.2f} GB are needed in {config.output_dir}, where "
            f"{free / GB:.2f} GB are free: the old ones are removed only once the new one is whole. Make room, or "
            "lower --save_total_limit."
        )
    return f"checkpoint: {size / GB:.2f} GB, saved and reloaded in {seconds:.1f} s; {free / GB:,.0f} GB are free"

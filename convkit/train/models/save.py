"""Write a model directory atomically: it appears complete or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from convkit.errors import ConvkitError
from convkit.train.models.family import ModelFamily
from convkit.utils.files import sync_folder

UNFINISHED, DELETING = ".unfinished-", ".deleting-"
"""Name prefixes of directories that are being written or deleted; after a crash, the next run removes them."""


def save_model(target: Path, model: Any, family: ModelFamily, dtype: torch.dtype) -> None:
    """Write a model atomically, in the layout of the official checkpoints."""
    with atomic_directory(target) as scratch:
        write_model(model, model.state_dict(), family, scratch, dtype)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a directory to write into; rename it to `target` on success, remove it on failure.

    Raises:
        ConvkitError: safetensors cannot write a file, mostly because the disk is full.
    """
    scratch = _scratch(target)
    try:
        yield scratch
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if not isinstance(error, SafetensorError):
            raise
        raise ConvkitError(
            f"{target} cannot be written: {error}. Free disk space, and run the same command again; a training run "
            "continues with --resume auto."
        ) from None
    _commit(scratch, target)


def require_empty(target: Path, option: str) -> None:
    """Raise ConvkitError unless `target` is an empty directory or does not exist."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConvkitError(f"{target} already exists and is not empty. Choose another {option}.")


def write_model(
    model: Any, weights: dict[str, Tensor], family: ModelFamily, directory: Path, dtype: torch.dtype
) -> None:
    """Write a model's weights as `dtype`, its config and its processor into a directory."""
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
    model.save_pretrained(directory, state_dict=tensors)
    original, model.config.dtype = model.config.dtype, dtype
    try:
        model.config.save_pretrained(directory)  # again: save_pretrained wrote the training dtype
    finally:
        model.config.dtype = original
    family.save_processor(directory)


def remove_directory(directory: Path) -> None:
    """Remove a checkpoint; if the process is killed meanwhile, no partial checkpoint remains."""
    renamed = directory.with_name(f"{DELETING}{directory.name}")
    shutil.rmtree(renamed, ignore_errors=True)
    directory.rename(renamed)
    shutil.rmtree(renamed)


def _scratch(target: Path) -> Path:
    scratch = target.with_name(f"{UNFINISHED}{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def _commit(scratch: Path, target: Path) -> None:
    """Sync all files to disk, then rename the directory to its final name.

    Files get the permissions of the directory, because safetensors makes files that only the owner can read.
    """
    readable = stat.S_IMODE(scratch.stat().st_mode) & 0o666
    for folder, _, names in os.walk(scratch):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fchmod(file.fileno(), readable)
                os.fsync(file.fileno())
        sync_folder(Path(folder))
    if target.exists():
        remove_directory(target)
    scratch.rename(target)
    sync_folder(target.parent)

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


def save_model(target: Path, model: Any, family: ModelFamily, dtype: torch.dtype) -> None:
    """Write a whole model in the official layout, which appears as a directory when it is complete."""
    with atomic_directory(target) as scratch:
        write_model(model, model.state_dict(), family, scratch, dtype)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A directory to write into that becomes `target` when it is complete; after a failure nothing stays.

    Raises:
        ConvkitError: tensors cannot be written; safetensors has no OSError for that.
    """
    scratch = _scratch(target)
    try:
        yield scratch
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if not isinstance(error, SafetensorError):
            raise
        raise ConvkitError(
            f"{target} cannot be written: {error}. Make room, and run the same command again; a training run goes on "
            "with --resume auto."
        ) from None
    _commit(scratch, target)


def require_empty(target: Path, option: str) -> None:
    """Refuse to write where something is; raises ConvkitError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConvkitError(f"{target} is there already and not empty. Choose another {option}.")


def write_model(
    model: Any, weights: dict[str, Tensor], family: ModelFamily, directory: Path, dtype: torch.dtype
) -> None:
    """Write a model's weights, config and processor into an existing directory, weights as `dtype`."""
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
    model.save_pretrained(directory, state_dict=tensors)
    usual, model.config.dtype = model.config.dtype, dtype
    try:
        model.config.save_pretrained(directory)  # again: transformers wrote the type that is trained in
    finally:
        model.config.dtype = usual
    family.save_processor(directory)


def remove_directory(directory: Path) -> None:
    """Remove a checkpoint; killed in between, nothing that looks like one is left."""
    doomed = directory.with_name(f"{DELETING}{directory.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    directory.rename(doomed)
    shutil.rmtree(doomed)


def _scratch(target: Path) -> Path:
    scratch = target.with_name(f"{UNFINISHED}{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch


def _commit(scratch: Path, target: Path) -> None:
    """Sync every file, then rename the directory into place.

    Files get the permissions of the folder: safetensors makes its own for the owner alone.
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

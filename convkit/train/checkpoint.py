"""Checkpoints: whole or not there, and exact enough to go on as if nothing had happened.

    RUN/checkpoints/step-00000500/
        model/ or adapter/     for use: the official layout in the type that is computed in, or PEFT's
        state.safetensors      for going on: what is trained, and the optimizer's moments, in float32
        state.json             the position in the plan, and of what run it is

There is no state of random numbers and none of the schedule: both follow from the position. Nothing is pickled.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convkit.errors import ConvkitError
from convkit.files import sync_folder
from convkit.train.fingerprint import write_base
from convkit.train.last_words import UNINTERRUPTED
from convkit.train.models.base import Adapter
from convkit.train.shapes import shape
from convkit.train.sharding.base import KINDS, Sharding

FOLDER = "checkpoints"
FINAL = "final"
_STATE, _TENSORS = "state.json", "state.safetensors"
_PREFIX, _UNFINISHED, _DOOMED, TRIAL = "step-", ".unfinished-", ".doomed-", ".trial-"


def save(
    run: Path,
    state: dict[str, Any],
    sharding: Sharding,
    adapter: Adapter,
    *,
    first: bool,
    dtype: torch.dtype,
    keep: int,
) -> Path:
    """Write the checkpoint after `state["step"]` steps, then remove the oldest beyond `keep`.

    All processes take part: what they share is put together.

    Args:
        first: whether this process is the one that writes.
        dtype: of the weights of a whole model, as they are for use.

    Returns:
        Where it is, once the first process has written it.

    Raises:
        ConvkitError, OSError: it cannot be written; the earlier ones are as they were.
    """
    target, weights, tensors = _path(run, state["step"]), sharding.weights(), _tensors(sharding, first)
    if not first:
        return target
    with UNINTERRUPTED, whole(target) as scratch:
        export(sharding.model, weights, adapter, scratch, dtype)
        save_file(tensors, scratch / _TENSORS)
        (scratch / _STATE).write_text(json.dumps(state, indent=2) + "\n")
    prune(run, keep)
    return target


def save_final(run: Path, sharding: Sharding, adapter: Adapter, *, first: bool, dtype: torch.dtype) -> Path:
    """Write what came of a run, in the layout in which it is used; all processes take part, as in `save`."""
    target, weights = run / FINAL, sharding.weights()
    if first:
        with UNINTERRUPTED, whole(target) as scratch:
            export(sharding.model, weights, adapter, scratch, dtype)
    return target


def save_model(target: Path, model: Any, adapter: Adapter, dtype: torch.dtype) -> None:
    """Write a whole model in the official layout, which appears as a directory when it is complete."""
    with whole(target) as scratch:
        _write_model(model, model.state_dict(), adapter, scratch, dtype)


@contextmanager
def whole(target: Path) -> Iterator[Path]:
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


def require_new(target: Path, option: str) -> None:
    """Refuse to write where something is; raises ConvkitError."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConvkitError(f"{target} is there already and not empty. Choose another {option}.")


def export(model: Any, weights: dict[str, Tensor], adapter: Adapter, directory: Path, dtype: torch.dtype) -> None:
    """Write adapters in PEFT's layout into adapter/, or else the whole model in the official one into model/."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(directory / "adapter", save_embedding_layers=False)
        write_base(Path(model.peft_config["default"].base_model_name_or_path), directory / "adapter")
        return
    _write_model(model, weights, adapter, directory / "model", dtype)


def _write_model(model: Any, weights: dict[str, Tensor], adapter: Adapter, directory: Path, dtype: torch.dtype) -> None:
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
    model.save_pretrained(directory, state_dict=tensors)
    usual, model.config.dtype = model.config.dtype, dtype
    try:
        model.config.save_pretrained(directory)  # again: transformers wrote the type that is trained in
    finally:
        model.config.dtype = usual
    adapter.save_processor(directory)


def checkpoints(run: Path) -> list[Path]:
    """Those of a run, the oldest first."""
    found = (run / FOLDER).glob(f"{_PREFIX}*")
    return sorted((path for path in found if path.name.removeprefix(_PREFIX).isdigit()), key=_step)


def read_state(directory: Path) -> dict[str, Any]:
    """The state that was given to `save`.

    Raises:
        ConvkitError: it is not one.
    """
    path = directory / _STATE
    try:
        state = json.loads(path.read_bytes())
        if (
            isinstance(state, dict)
            and all(isinstance(state.get(name), int) for name in ("rows", "processes"))
            and state.get("step") == _step(directory)
            and isinstance(state.get("of"), dict)
        ):
            return state
        problem = "it is no state of a run"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise ConvkitError(f"{path} cannot be read: {problem}. {_remove(directory)}")


def load(directory: Path, sharding: Sharding) -> None:
    """Put back what is trained, and the optimizer's moments, bit for bit; all processes take part.

    Raises:
        ConvkitError: the checkpoint does not hold just these.
    """
    trained = {name: p for name, p in sharding.model.named_parameters() if p.requires_grad}
    try:
        with safe_open(directory / _TENSORS, "pt") as file:
            if set(file.keys()) != {f"{kind}/{name}" for kind in KINDS for name in trained}:
                raise ConvkitError(f"{directory / _TENSORS} is of a model with other tensors. {_remove(directory)}")
            for name, parameter in trained.items():
                weight = file.get_slice(f"weight/{name}")
                if tuple(weight.get_shape()) != shape(parameter):
                    raise ConvkitError(f"{directory / _TENSORS}: {name} has another shape. {_remove(directory)}")
            sharding.restore(lambda kind, name: file.get_tensor(f"{kind}/{name}"))
    except (OSError, SafetensorError) as error:
        raise ConvkitError(f"{directory / _TENSORS} cannot be read: {error}. {_remove(directory)}") from None


def clean(run: Path) -> None:
    """Remove what a killed run has left half-written."""
    for folder in (run, run / FOLDER):
        for prefix in (_UNFINISHED, _DOOMED, TRIAL):
            for path in folder.glob(f"{prefix}*"):
                shutil.rmtree(path)


def prune(run: Path, keep: int) -> None:
    """Remove the oldest beyond `keep`."""
    for old in checkpoints(run)[:-keep]:
        remove(old)


def remove(directory: Path) -> None:
    """Remove a checkpoint; killed in between, nothing that looks like one is left."""
    doomed = directory.with_name(f"{_DOOMED}{directory.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    directory.rename(doomed)
    shutil.rmtree(doomed)


def _tensors(sharding: Sharding, first: bool) -> dict[str, Tensor]:
    """Those of `Sharding.trained`, on the first process; elsewhere each is dropped as soon as it is whole."""
    found: dict[str, Tensor] = {}
    for name, tensors in sharding.trained():
        if first:
            found |= {f"{kind}/{name}": tensor.cpu().contiguous() for kind, tensor in tensors.items()}
    return found


def _path(run: Path, step: int) -> Path:
    return run / FOLDER / f"{_PREFIX}{step:08d}"


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix(_PREFIX))


def _scratch(target: Path) -> Path:
    scratch = target.with_name(f"{_UNFINISHED}{target.name}")
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
        remove(target)
    scratch.rename(target)
    sync_folder(target.parent)


def _remove(directory: Path) -> str:
    return f"Remove {directory} to go on from the checkpoint before it."

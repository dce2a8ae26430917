"""Checkpoints: whole or not there, and exact enough to go on as if nothing had happened.

    RUN/checkpoints/step-00000500/
        model/ or adapter/     for use: the official layout in the type that is computed in, or PEFT's
        state.safetensors      for going on: what is trained, and the optimizer's moments, in float32
        state.json             the position in the schedule, and of what run it is

There is no state of random numbers and none of the schedule: both follow from the position. Nothing is pickled.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convkit.errors import ConvkitError
from convkit.train.checkpoint.shapes import shape
from convkit.train.distributed.failure import UNINTERRUPTED
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import write_base_model
from convkit.train.models.save import DELETING, UNFINISHED, atomic_directory, remove_directory, write_model
from convkit.train.optim.sharding.base import STATE_KINDS, Sharding

FOLDER = "checkpoints"
FINAL = "final"
_STATE, _TENSORS = "state.json", "state.safetensors"
_PREFIX, TRIAL = "step-", ".trial-"


def save(
    run: Path,
    state: dict[str, Any],
    sharding: Sharding,
    family: ModelFamily,
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
    target, weights, tensors = _path(run, state["step"]), sharding.full_weights(), _tensors(sharding, first)
    if not first:
        return target
    with UNINTERRUPTED, atomic_directory(target) as scratch:
        export(sharding.model, weights, family, scratch, dtype)
        save_file(tensors, scratch / _TENSORS)
        (scratch / _STATE).write_text(json.dumps(state, indent=2) + "\n")
    prune(run, keep)
    return target


def save_final(run: Path, sharding: Sharding, family: ModelFamily, *, first: bool, dtype: torch.dtype) -> Path:
    """Write what came of a run, in the layout in which it is used; all processes take part, as in `save`."""
    target, weights = run / FINAL, sharding.full_weights()
    if first:
        with UNINTERRUPTED, atomic_directory(target) as scratch:
            export(sharding.model, weights, family, scratch, dtype)
    return target


def export(model: Any, weights: dict[str, Tensor], family: ModelFamily, directory: Path, dtype: torch.dtype) -> None:
    """Write adapters in PEFT's layout into adapter/, or else the whole model in the official one into model/."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(directory / "adapter", save_embedding_layers=False)
        write_base_model(Path(model.peft_config["default"].base_model_name_or_path), directory / "adapter")
        return
    write_model(model, weights, family, directory / "model", dtype)


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
            if set(file.keys()) != {f"{kind}/{name}" for kind in STATE_KINDS for name in trained}:
                raise ConvkitError(f"{directory / _TENSORS} is of a model with other tensors. {_remove(directory)}")
            for name, parameter in trained.items():
                weight = file.get_slice(f"weight/{name}")
                if tuple(weight.get_shape()) != shape(parameter):
                    raise ConvkitError(f"{directory / _TENSORS}: {name} has another shape. {_remove(directory)}")
            sharding.load_parameter_states(lambda kind, name: file.get_tensor(f"{kind}/{name}"))
    except (OSError, SafetensorError) as error:
        raise ConvkitError(f"{directory / _TENSORS} cannot be read: {error}. {_remove(directory)}") from None


def clean(run: Path) -> None:
    """Remove what a killed run has left half-written."""
    for folder in (run, run / FOLDER):
        for prefix in (UNFINISHED, DELETING, TRIAL):
            for path in folder.glob(f"{prefix}*"):
                shutil.rmtree(path)


def prune(run: Path, keep: int) -> None:
    """Remove the oldest beyond `keep`."""
    for old in checkpoints(run)[:-keep]:
        remove_directory(old)


def _tensors(sharding: Sharding, first: bool) -> dict[str, Tensor]:
    """Those of `Sharding.trained`, on the first process; elsewhere each is dropped as soon as it is whole."""
    found: dict[str, Tensor] = {}
    for name, tensors in sharding.parameter_states():
        if first:
            found |= {f"{kind}/{name}": tensor.cpu().contiguous() for kind, tensor in tensors.items()}
    return found


def _path(run: Path, step: int) -> Path:
    return run / FOLDER / f"{_PREFIX}{step:08d}"


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix(_PREFIX))


def _remove(directory: Path) -> str:
    return f"Remove {directory} to go on from the checkpoint before it."

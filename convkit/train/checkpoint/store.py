"""Training checkpoints: written atomically, and exact enough to resume bit for bit.

    RUN/checkpoints/step-00000500/
        model/ or adapter/     for inference: the official layout in the computation type, or PEFT's adapter layout
        state.safetensors      for resuming: trained weights and the optimizer's moments, in float32
        state.json             for resuming: the `RunState`

Nothing is pickled.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convkit.errors import ConvkitError
from convkit.train.checkpoint.shapes import shape
from convkit.train.checkpoint.state import RunState
from convkit.train.distributed.failure import WRITE_LOCK
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import write_base_model
from convkit.train.models.save import DELETING, UNFINISHED, atomic_directory, remove_directory, write_model
from convkit.train.optim.sharding.base import STATE_KINDS, Sharding
from convkit.utils.json_file import first_problem

FOLDER = "checkpoints"
FINAL = "final"
_STATE, _TENSORS = "state.json", "state.safetensors"
_PREFIX, CHECK_PREFIX = "step-", ".check-"


def save(
    run: Path,
    state: RunState,
    sharding: Sharding,
    family: ModelFamily,
    *,
    first: bool,
    dtype: torch.dtype,
    keep: int,
) -> Path:
    """Write the checkpoint after `state.step` steps, then remove the oldest ones beyond `keep`.

    All ranks take part, to gather sharded tensors.

    Args:
        first: whether this is rank 0, which writes.
        dtype: type of a full model's weights for inference.

    Returns:
        The checkpoint's directory; it exists once rank 0 has written it.

    Raises:
        ConvkitError, OSError: it cannot be written; earlier checkpoints are unchanged.
    """
    target, weights, tensors = _path(run, state.step), sharding.full_weights(), _tensors(sharding, first)
    if not first:
        return target
    with WRITE_LOCK, atomic_directory(target) as scratch:
        export(sharding.model, weights, family, scratch, dtype)
        save_file(tensors, scratch / _TENSORS)
        (scratch / _STATE).write_text(state.to_json())
    prune(run, keep)
    return target


def save_final(run: Path, sharding: Sharding, family: ModelFamily, *, first: bool, dtype: torch.dtype) -> Path:
    """Write the trained model or adapter into RUN/final/; all ranks take part, as in `save`."""
    target, weights = run / FINAL, sharding.full_weights()
    if first:
        with WRITE_LOCK, atomic_directory(target) as scratch:
            export(sharding.model, weights, family, scratch, dtype)
    return target


def export(model: Any, weights: dict[str, Tensor], family: ModelFamily, directory: Path, dtype: torch.dtype) -> None:
    """Write a LoRA adapter in PEFT's layout into adapter/, or the whole model in the official layout into model/."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(directory / "adapter", save_embedding_layers=False)
        write_base_model(Path(model.peft_config["default"].base_model_name_or_path), directory / "adapter")
        return
    write_model(model, weights, family, directory / "model", dtype)


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = (run / FOLDER).glob(f"{_PREFIX}*")
    return sorted((path for path in found if path.name.removeprefix(_PREFIX).isdigit()), key=_step)


def read_state(directory: Path) -> RunState:
    """Read the state of a checkpoint.

    Raises:
        ConvkitError: it cannot be read, or belongs to another step.
    """
    path = directory / _STATE
    try:
        state = RunState.from_json(path.read_bytes())
    except OSError as error:
        problem = str(error)
    except ValidationError as error:
        problem = first_problem(error)
    else:
        if state.step == _step(directory):
            return state
        problem = f"it is the state of step {state.step:,}"
    raise ConvkitError(f"{path} cannot be read: {problem}. {_remedy(directory)}")


def load(directory: Path, sharding: Sharding) -> None:
    """Restore the trained weights and the optimizer's moments, bit for bit; all ranks take part.

    Raises:
        ConvkitError: the checkpoint is damaged or holds other tensors.
    """
    trained = {name: p for name, p in sharding.model.named_parameters() if p.requires_grad}
    try:
        with safe_open(directory / _TENSORS, "pt") as file:
            if set(file.keys()) != {f"{kind}/{name}" for kind in STATE_KINDS for name in trained}:
                raise ConvkitError(f"{directory / _TENSORS} holds the tensors of another model. {_remedy(directory)}")
            for name, parameter in trained.items():
                weight = file.get_slice(f"weight/{name}")
                if tuple(weight.get_shape()) != shape(parameter):
                    raise ConvkitError(f"{directory / _TENSORS}: {name} has another shape. {_remedy(directory)}")
            sharding.load_parameter_states(lambda kind, name: file.get_tensor(f"{kind}/{name}"))
    except (OSError, SafetensorError) as error:
        raise ConvkitError(f"{directory / _TENSORS} cannot be read: {error}. {_remedy(directory)}") from None


def clean(run: Path) -> None:
    """Remove the unfinished directories of a killed run."""
    for folder in (run, run / FOLDER):
        for prefix in (UNFINISHED, DELETING, CHECK_PREFIX):
            for path in folder.glob(f"{prefix}*"):
                shutil.rmtree(path)


def prune(run: Path, keep: int) -> None:
    """Remove the oldest checkpoints beyond the last `keep`."""
    for old in checkpoints(run)[:-keep]:
        remove_directory(old)


def _tensors(sharding: Sharding, first: bool) -> dict[str, Tensor]:
    """Return the tensors of `Sharding.parameter_states` on rank 0; other ranks drop each one once it is gathered."""
    found: dict[str, Tensor] = {}
    for name, tensors in sharding.parameter_states():
        if first:
            found |= {f"{kind}/{name}": tensor.cpu().contiguous() for kind, tensor in tensors.items()}
    return found


def _path(run: Path, step: int) -> Path:
    return run / FOLDER / f"{_PREFIX}{step:08d}"


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix(_PREFIX))


def _remedy(directory: Path) -> str:
    return f"Remove {directory} to resume from the checkpoint before it."

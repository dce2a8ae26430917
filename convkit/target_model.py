"""Resolve the name of a model: a token profile, or a checkpoint directory."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.errors import ConvkitError, MissingExtra
from convkit.utils.silence import silence_libraries

if TYPE_CHECKING:
    from convkit.profiles import TargetModel


def find_target(
    model: str, tokenizer: Path | None = None, max_length: int | None = None
) -> "tuple[TargetModel | None, str]":
    """Return the model that tokens are counted for, and how its name was understood; None without a name.

    The name is a token profile or a checkpoint directory. If it is both, it is the profile, and the directory must be
    written as a path. A checkpoint's own tokenizer.json counts text unless another is given.

    Raises:
        ConvkitError: there is no such profile, checkpoint or tokenizer, or `model` is missing.
        MissingExtra: the model is a checkpoint directory, and the extra `train` is not installed.
    """
    from convkit.profiles import TargetModel

    if not model:
        if tokenizer or max_length:
            option = "--tokenizer" if tokenizer else "--max_length"
            raise ConvkitError(f"{option} needs a model. Add: --model PROFILE, or --model DIRECTORY")
        return None, ""
    if not _is_directory(model):
        target = TargetModel.from_options(model, tokenizer, max_length)
        path = f" (for the directory of this name, pass ./{model})" if Path(model).is_dir() else ""
        return target, f"model: token profile {target.spec}{path}"
    directory = Path(model)
    if tokenizer is None and (directory / "tokenizer.json").is_file():
        tokenizer = directory / "tokenizer.json"
    target = TargetModel.from_options(_checkpoint_profile(directory), tokenizer, max_length)
    return target, f"model: checkpoint directory {model}, token profile {target.spec}"


def _is_directory(model: str) -> bool:
    """Return whether --model is a directory; the name of a profile is none, unless it is written as a path.

    Raises:
        ConvkitError: it is neither a profile nor a directory.
    """
    from convkit.profiles import PROFILES, get_profile

    if model.partition(":")[0] in PROFILES:
        return False
    if Path(model).is_dir():
        return True
    if re.search(r"[/\\]", model) or model in (".", ".."):
        from convkit.train.model_directory import require_checkpoint_directory

        require_checkpoint_directory(Path(model))
    try:
        get_profile(model)
    except ConvkitError as error:
        raise ConvkitError(f"{error} Or pass a checkpoint directory; there is none of this name.") from None
    return False


def _checkpoint_profile(directory: Path) -> str:
    """Return the token profile of a checkpoint, with the options of its processor."""
    silence_libraries()
    try:
        from convkit.train.models import model_family
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Reading a checkpoint directory") from None
    return model_family(directory).profile

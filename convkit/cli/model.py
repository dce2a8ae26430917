"""Resolve the options that name a model: --model, --tokenizer and --max_length."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from convkit.profiles import TargetModel


def resolve_model(model: str, tokenizer: Path | None, max_length: int | None = None) -> "TargetModel | None":
    """Return the model that the options describe, and log what --model was resolved to; None if it is not given.

    --model is a token profile or a checkpoint directory. If it is the name of both, it is the profile, and the
    directory must be written as a path. A checkpoint's own tokenizer.json counts text unless --tokenizer is given.

    Raises:
        ConvkitError: there is no such profile, checkpoint or tokenizer, or --model is missing.
        MissingExtra: --model is a checkpoint directory, and the extra `train` is not installed.
    """
    from convkit.errors import ConvkitError
    from convkit.profiles import TargetModel

    if not model:
        if tokenizer or max_length:
            option = "--tokenizer" if tokenizer else "--max_length"
            raise ConvkitError(f"{option} needs a model. Add: --model PROFILE, or --model DIRECTORY")
        return None
    if not _is_directory(model):
        target = TargetModel.from_options(model, tokenizer, max_length)
        path = f" (for the directory of this name, pass ./{model})" if Path(model).is_dir() else ""
        typer.echo(f"model: token profile {target.spec}{path}", err=True)
        return target
    directory = Path(model)
    if tokenizer is None and (directory / "tokenizer.json").is_file():
        tokenizer = directory / "tokenizer.json"
    target = TargetModel.from_options(_checkpoint_profile(directory), tokenizer, max_length)
    typer.echo(f"model: checkpoint directory {model}, token profile {target.spec}", err=True)
    return target


def _is_directory(model: str) -> bool:
    """Return whether --model is a directory; the name of a profile is none, unless it is written as a path.

    Raises:
        ConvkitError: it is neither a profile nor a directory.
    """
    from convkit.errors import ConvkitError
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
    from convkit.cli.train_options import silence_libraries
    from convkit.errors import MissingExtra

    silence_libraries()
    try:
        from convkit.train.models import model_family
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Reading a checkpoint directory") from None
    return model_family(directory).profile

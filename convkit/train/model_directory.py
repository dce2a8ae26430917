"""Check that --model is a checkpoint directory, and explain how to get one if it is not."""

import re
from pathlib import Path

from convkit.errors import ConvkitError
from convkit.profiles import PROFILES, get_profile


def require_checkpoint_directory(model: Path) -> None:
    """Refuse a model that is not a directory.

    Raises:
        ConvkitError: the directory does not exist. The message explains how to get a checkpoint if the name is that of
            a token profile, or may be that of a model on the Hugging Face Hub.
    """
    if model.is_dir():
        return
    name = str(model)
    if (profile := name.partition(":")[0]) in PROFILES:
        repository = get_profile(profile).checkpoint
        raise ConvkitError(
            f"{name} is a token profile: it describes how a model counts tokens, and has no weights. This command "
            f"needs a checkpoint directory. To get one, run: {_how_to_download(repository)}"
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ConvkitError(
            f"There is no directory {name}. convkit does not download models. If this is a model on the Hugging Face "
            f"Hub, run: {_how_to_download(name)}"
        )
    raise ConvkitError(f"There is no directory {name}. Pass a checkpoint directory with --model.")


def _how_to_download(repository: str) -> str:
    folder = repository.partition("/")[2]
    return f"hf download {repository} --local-dir {folder}; then pass --model {folder}."

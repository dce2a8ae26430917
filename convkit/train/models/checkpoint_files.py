"""Read and check the configuration files of a checkpoint; every error names the file at fault."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convkit.errors import ConvkitError

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
CONFIG_FILES = ("config.json", "generation_config.json")
_MAX_MESSAGE = 400
_REMEDY = "Take the file from the official checkpoint."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file does not exist.

    Raises:
        ConvkitError: the file cannot be read, or is not a JSON object.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConvkitError(f"{path} cannot be read: {_message(error)}. {_REMEDY}") from None
    if not isinstance(found, dict):
        raise ConvkitError(f"{path} is not a JSON object, but {str(found)[:40]!r}. {_REMEDY}")
    return found


def check_json(directory: Path, *names: str) -> None:
    """Raise ConvkitError for a file that is not a JSON object; libraries mostly do not name the file."""
    for name in names:
        read_json(directory / name)


def check_image_token(directory: Path, image_token_id: int, of_tokenizer: int) -> None:
    """Raise ConvkitError if the image token of config.json is not the tokenizer's."""
    if image_token_id != of_tokenizer:
        raise ConvkitError(
            f"{directory} mixes two checkpoints: the image token is {image_token_id} in config.json, but "
            f"{of_tokenizer} in the tokenizer. Take {' and '.join(TOKENIZER_FILES[:2])} from the checkpoint that has "
            "the weights."
        )


@contextmanager
def convert_errors(directory: Path | str, *names: str) -> Iterator[None]:
    """Convert any error that a library raises over the contents of files into one that names the files.

    ImportError passes through: a missing package is not a fault of the files.

    Raises:
        ConvkitError: a library raised an error.
    """
    try:
        yield
    except (ConvkitError, ImportError):
        raise
    except Exception as error:
        # `from None`: the traceback would keep partly loaded weights in memory.
        raise ConvkitError(
            f"{directory} cannot be used; check {', '.join(names)}: {_message(error)}. {_REMEDY}"
        ) from None


def _message(error: Exception) -> str:
    text = " ".join(str(error).split()).removesuffix(".")[:_MAX_MESSAGE]
    return f"{text} ({type(error).__name__})" if text else type(error).__name__

"""The files of a checkpoint, which others wrote: whatever is wrong with one ends in an error that names it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convkit.errors import ConvkitError

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
CONFIG_FILES = ("config.json", "generation_config.json")
_LONGEST = 400


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file.

    Raises:
        ConvkitError: it is something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConvkitError(f"{path} cannot be read: {_words(error)}. {_REMEDY}") from None
    if not isinstance(found, dict):
        raise ConvkitError(f"{path} holds no JSON object, but {str(found)[:40]!r}. {_REMEDY}")
    return found


def check_json(directory: Path, *names: str) -> None:
    """Refuse, by name, those that are not JSON objects; libraries say it in many ways, mostly without a name."""
    for name in names:
        read_json(directory / name)


def check_image_token(directory: Path, image_token_id: int, of_tokenizer: int) -> None:
    """Raises ConvkitError where the model looks for images at another token than the tokenizer has for them."""
    if image_token_id != of_tokenizer:
        raise ConvkitError(
            f"{directory} is made of two checkpoints: images are token {image_token_id} to its config.json, but "
            f"{of_tokenizer} to its tokenizer. Take {' and '.join(TOKENIZER_FILES[:2])} from the checkpoint that the "
            "weights are from."
        )


@contextmanager
def convert_errors(directory: Path | str, *names: str) -> Iterator[None]:
    """Whatever a library raises over odd values in files becomes an error that names them.

    A package that is not installed is no fault of a file: ImportError goes through.

    Raises:
        ConvkitError: see above.
    """
    try:
        yield
    except (ConvkitError, ImportError):
        raise
    except Exception as error:
        # Pieces of what has been made so far hang on the traceback: it is not needed any more.
        raise ConvkitError(
            f"{directory} cannot be used; look at {', '.join(names)}: {_words(error)}. {_REMEDY}"
        ) from None


def _words(error: Exception) -> str:
    said = " ".join(str(error).split()).removesuffix(".")[:_LONGEST]
    return f"{said} ({type(error).__name__})" if said else type(error).__name__


_REMEDY = "Take the file from the official checkpoint."

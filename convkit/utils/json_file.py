"""Read and write JSON files that a pydantic model describes."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from convkit.errors import ConvkitError
from convkit.utils.files import write_atomic

T = TypeVar("T")


def read_model(path: Path, model: type[T] | TypeAdapter[T], remedy: str, error: type[ConvkitError] = ConvkitError) -> T:
    """Read a JSON file and validate it.

    Args:
        remedy: the last sentences of an error message: what the user can do.
        error: the type of the error.

    Raises:
        ConvkitError: the file is missing, cannot be read, or does not match the model.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path} does not exist. {remedy}") from None
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}). {remedy}") from None
    except ValidationError as reason:
        raise error(f"{path} is damaged or of another version: {first_problem(reason)}. {remedy}") from None


def write_model(path: Path, model: BaseModel, *, exclude_none: bool = False) -> None:
    """Write a model as indented JSON; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the file cannot be written.
    """
    content = model.model_dump_json(indent=2, exclude_none=exclude_none).encode() + b"\n"
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        write_atomic(path, content, Path(scratch))


def first_problem(error: ValidationError) -> str:
    """Return the first error of a validation with its location."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]

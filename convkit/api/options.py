"""Check the options of API functions, and choose their progress bars."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from convkit.errors import ConvkitError
from convkit.utils.progress import ProgressBars, no_progress_bar, progress_bar

if TYPE_CHECKING:
    from pydantic import ValidationError


Pathlike = str | os.PathLike[str]
T = TypeVar("T")


def validated(options: type[T], values: Mapping[str, Any], function: str) -> T:
    """Return a dataclass of options with checked values.

    Raises:
        ConvkitError: an option is unknown or its value invalid.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    strict = with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))(options)
    try:
        return TypeAdapter(strict).validate_python(dict(values))
    except ValidationError as error:
        raise ConvkitError(f"{problems(error)}. See: help({function})") from None


def problems(error: "ValidationError") -> str:
    """Return all errors of a validation, each with its location."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))


def progress_bars(progress: bool) -> ProgressBars:
    """Return progress bars, or functions that show nothing."""
    return progress_bar if progress else no_progress_bar

"""Resolve the options that name a model: --model, --tokenizer and --max_length."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from convkit.profiles import TargetModel


def resolve_model(model: str, tokenizer: Path | None, max_length: int | None = None) -> "TargetModel | None":
    """Return the model that the options describe, and log what --model was resolved to; None if it is not given.

    Raises:
        ConvkitError, MissingExtra: see `find_target`.
    """
    from convkit.target_model import find_target

    target, resolved_to = find_target(model, tokenizer, max_length)
    if resolved_to:
        typer.echo(resolved_to, err=True)
    return target

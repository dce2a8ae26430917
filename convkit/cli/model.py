"""The options that name a model, for the commands that have them."""

from pathlib import Path

from convkit.errors import ConvkitError
from convkit.profiles import TargetModel


def target_of(model: str, tokenizer: Path | None, max_length: int | None = None) -> TargetModel | None:
    """What --model, --tokenizer and --max_length ask for.

    Raises:
        ConvkitError: there is no such profile or tokenizer, or --model is missing.
    """
    if not model and (tokenizer or max_length):
        option = "--tokenizer" if tokenizer else "--max_length"
        raise ConvkitError(f"{option} says something about a model, but none is named. Add: --model PROFILE")
    return TargetModel.from_options(model, tokenizer, max_length) if model else None

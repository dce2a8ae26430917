"""Command-line options made from the dataclass of a run's options."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from convkit.train.config import ALIASES, SECTIONS, Config


def quiet() -> None:
    """transformers talks of loading and of its own future; what matters is said by us."""
    import logging
    import os

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of missing extras wherever it is installed
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)  # wherever it is installed
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # packs are of many sizes
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _option(name: str, annotation: Any, default: Any, section: str) -> inspect.Parameter:
    """A field as an option that is None where it is not given: then a file may say it."""
    kind, text, *_ = get_args(annotation)
    if get_origin(kind) is not Literal and get_args(kind):
        kind = get_args(kind)[0]  # an option that may be None
    names = [f"--{name}", *(f"--{alias}" for alias in [ALIASES.get(name)] if alias)]
    if kind is bool:
        names = [f"--{name}/--no_{name}"]
    shown = f" Default: {default}."
    if default is inspect.Parameter.empty:
        shown = " Required."
    elif default is None or default is False:
        shown = ""
    option = typer.Option(*names, help=text + shown, rich_help_panel=section)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind | None, option], default=None
    )


def options(
    without: Collection[str] = (), defaults: Mapping[str, Any] = MappingProxyType({})
) -> list[inspect.Parameter]:
    """An option for each field of the configuration; None where it is not given.

    Args:
        without: fields that get none.
        defaults: what help says instead of the configuration's.
    """
    hints = get_type_hints(Config, include_extras=True)
    usual = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default for field in fields(Config)
    }
    found, section = [], ""
    for name, default in usual.items():
        section = SECTIONS.get(name, section)
        if name not in without:
            found.append(_option(name, hints[name], defaults.get(name, default), section))
    return found


def signed(run: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """A command that takes these options and has the function's help."""

    def command(**values: Any) -> None:
        run(**values)

    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command

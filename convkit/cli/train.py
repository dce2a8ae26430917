"""`convkit train`: options are made from `convkit.train.config.Config`."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from convkit.cli.report import at_the_end
from convkit.train.config import ALIASES, SECTIONS, Config
from convkit.train.recipes import RECIPES


def _run(config: Path | None, recipe: str | None, nproc: int, validate: bool, **values: Any) -> None:
    """Fine-tune a model on a validated data set; killed at any instant, `--resume auto` goes on bit for bit.

    Runs by itself, with --nproc, or once for each GPU under torchrun or accelerate launch. Exit code 0 done, 1 findings
    of --validate, 2 could not run, 143 stopped by SIGTERM after saving.
    """
    from convkit.train.config import resolve

    given = {name: value for name, value in values.items() if value is not None}
    chosen = resolve(given, config, recipe)
    if nproc > 1:
        _launch(nproc)
    _start(chosen, validate)


def _launch(processes: int) -> None:
    """Run this very command in several processes; returns only in one of these."""
    from convkit.errors import MissingExtra
    from convkit.train.launch import launch, launched

    if launched():
        return
    try:
        code = launch(processes, sys.argv[1:])
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Training") from None
    raise typer.Exit(code)


def _start(config: Config, validate: bool) -> None:
    quiet()
    from convkit.errors import MissingExtra
    from convkit.progress import progress_bar

    try:
        from convkit.train import models, run
        from convkit.train.distributed import world
        from convkit.train.loop import Stopped
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Training") from None
    adapter = models.adapter(config.model, config.num_crops)
    code = 0
    with world() as joined:  # which takes what is raised in it for a failure
        if validate and joined.from_first(lambda: _has_findings(config, adapter.profile)):
            code = 1
        else:
            try:
                run.train(config, adapter, joined, progress_bar, typer.echo)
                if joined.first:
                    at_the_end(config.output_dir)
            except Stopped as stopped:
                code = 143  # all stop after the same step
                if joined.first:
                    typer.echo(f"convkit: {stopped}", err=True)
    if code:
        raise typer.Exit(code)


def _has_findings(config: Config, profile: str | None) -> bool:
    """Validate the data set for the model, and show what is wrong with it."""
    from convkit.profiles import Target
    from convkit.progress import progress_bar
    from convkit.reporters import get_reporter
    from convkit.validate import validate

    result = validate([config.data_dir], target=Target.of(profile) if profile else None, bars=progress_bar)
    sys.stdout.write(get_reporter("text")(result.report))
    return bool(result.report.summary.errors)


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


def command() -> Any:
    """The command, with an option for each field."""
    first = SECTIONS["data_dir"]
    own: dict[str, tuple[Any, Any]] = {
        "config": (
            Annotated[
                Path | None,
                typer.Option("--config", help="A YAML file of options; those given win.", rich_help_panel=first),
            ],
            None,
        ),
        "recipe": (
            Annotated[
                str | None,
                typer.Option(
                    "--recipe", help=f"The recipe's options for: {', '.join(RECIPES)}.", rich_help_panel=first
                ),
            ],
            None,
        ),
        "nproc": (
            Annotated[
                int,
                typer.Option(
                    "--nproc",
                    min=1,
                    help="Start so many processes here, one for each GPU.",
                    rich_help_panel=SECTIONS["deepspeed"],
                ),
            ],
            1,
        ),
        "validate": (
            Annotated[
                bool,
                typer.Option("--validate", help="Run `convkit validate` for the model first.", rich_help_panel=first),
            ],
            False,
        ),
    }
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in own.items()
    ]
    return signed(_run, [*options(), *more])

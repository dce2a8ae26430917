"""`convkit train`: options are made from `convkit.train.config.Config`."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convkit.cli.report import at_the_end
from convkit.cli.train_options import options, quiet, signed
from convkit.train.config import SECTIONS, Config
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
    from convkit.train.distributed.launch import launch, launched

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
    from convkit.utils.progress import progress_bar

    try:
        from convkit.train import models, run
        from convkit.train.distributed.world import world
        from convkit.train.trainer import Stopped
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Training") from None
    family = models.model_family(config.model, config.num_crops)
    code = 0
    with world() as joined:  # which takes what is raised in it for a failure
        if validate and joined.from_first(lambda: _has_findings(config, family.profile)):
            code = 1
        else:
            try:
                run.train(config, family, joined, progress_bar, typer.echo)
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
    from convkit.reporters import get_reporter
    from convkit.utils.progress import progress_bar
    from convkit.validate.run import validate

    result = validate([config.data_dir], target=Target.of(profile) if profile else None, bars=progress_bar)
    sys.stdout.write(get_reporter("text")(result.report))
    return bool(result.report.summary.errors)


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

"""The command `convkit train`; its options are made from `convkit.train.config.Config`."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convkit.cli.report import write_final_report
from convkit.cli.train_options import dataclass_options, parameter, with_signature
from convkit.train.config import ALIASES, SECTIONS, Config
from convkit.train.recipes import RECIPES
from convkit.utils.silence import silence_libraries


def _run(config: Path | None, recipe: str | None, nproc: int, validate: bool, **values: Any) -> None:
    """Fine-tune a vision-language model on a validated dataset.

    Use --nproc for several GPUs, or torchrun or accelerate launch. A run that was killed continues with --resume auto.
    Exit codes: 0 done, 1 findings of --validate, 2 error, 143 stopped by SIGTERM after saving a checkpoint.
    """
    from convkit.train.config import resolve

    given = {name: value for name, value in values.items() if value is not None}
    chosen = resolve(given, config, recipe)
    if nproc > 1:
        _launch(nproc)
    _start(chosen, validate)


def _launch(processes: int) -> None:
    """Run this command in several processes; return only in one of those."""
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
    silence_libraries()
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
    with world() as joined:  # an exception inside counts as a failure of this rank
        if validate and joined.from_first(lambda: _has_findings(config, family.profile)):
            code = 1
        else:
            try:
                log_steps = not (config.tqdm and sys.stderr.isatty())
                run.train(config, family, joined, progress_bar, typer.echo, log_steps=log_steps)
                if joined.first:
                    write_final_report(config.output_dir)
            except Stopped as stopped:
                code = 143  # all ranks stop after the same step
                if joined.first:
                    typer.echo(f"convkit: {stopped}", err=True)
    if code:
        raise typer.Exit(code)


def _has_findings(config: Config, profile: str | None) -> bool:
    """Validate the dataset for the model, print the report and return whether it has errors."""
    from convkit.profiles import TargetModel
    from convkit.reporters import get_reporter
    from convkit.utils.progress import progress_bar
    from convkit.validate.run import validate

    result = validate(
        [config.data_dir], target=TargetModel.from_options(profile) if profile else None, bars=progress_bar
    )
    sys.stdout.write(get_reporter("text")(result.report))
    return bool(result.report.summary.errors)


def _own_options() -> list[inspect.Parameter]:
    """Return the options that are not fields of `Config`."""
    first, distributed = SECTIONS["data_dir"], SECTIONS["deepspeed"]
    config = typer.Option(
        "--config", help="YAML file of options; the command line overrides it.", rich_help_panel=first
    )
    recipe = typer.Option(
        "--recipe", help=f"Use published hyper-parameters: {', '.join(RECIPES)}.", rich_help_panel=first
    )
    validate = typer.Option("--validate", help="Run `convkit validate` for this model first.", rich_help_panel=first)
    nproc = typer.Option(
        "--nproc", min=1, help="Processes to start on this machine, one per GPU.", rich_help_panel=distributed
    )
    return [
        parameter("config", Annotated[Path | None, config], None),
        parameter("recipe", Annotated[str | None, recipe], None),
        parameter("nproc", Annotated[int, nproc], 1),
        parameter("validate", Annotated[bool, validate], False),
    ]


train = with_signature(
    _run, [*dataclass_options(Config, aliases=ALIASES, sections=SECTIONS, unset_is_none=True), *_own_options()]
)

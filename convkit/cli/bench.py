"""`convkit bench`: measure the speed of training and of data loading on this machine."""

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from convkit.cli.commands import Command, Group
from convkit.cli.train_options import dataclass_options, parameter, with_signature
from convkit.errors import ConvkitError
from convkit.train.bench.options import (
    NO_EFFECT_ON_SPEED,
    SET_BY_BENCH_OPTIONS,
    TRAIN_DEFAULTS,
    BenchOptions,
    DataLoadingOptions,
)
from convkit.train.config import ALIASES, SECTIONS, Config
from convkit.utils.silence import silence_libraries

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure the speed of training and of data loading on this machine.",
)


def _train(json_file: Path | None, **values: Any) -> None:
    """Measure training throughput: Phi-3.5-vision with random weights, trained for some steps.

    Prints images and tokens per second, MFU, peak memory, and the time per section of a step. Needs no checkpoint and
    no data. The options below are those of `convkit train`.
    """
    config, options = prepare(json_file, values)
    from rich.console import Console

    from convkit.errors import MissingExtra
    from convkit.utils.progress import no_progress_bar, progress_bar

    try:
        from convkit.train.bench.render import render
        from convkit.train.bench.train import bench
        from convkit.train.distributed.world import world
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Measuring") from None
    with world() as joined:
        result = bench(config, options, joined, progress_bar if config.tqdm else no_progress_bar)
    _write(json_file, result.to_json())
    Console(soft_wrap=True).print(*render(result), sep="\n")


def prepare(json_file: Path | None, values: dict[str, Any]) -> tuple[Config, BenchOptions]:
    """Check the command-line values of `train_parameters`, and return them as options.

    Raises:
        ConvkitError: the options contradict each other, or the JSON file cannot be written after the measurement.
    """
    _require_folder(json_file)
    silence_libraries()
    options = BenchOptions(**{field.name: values.pop(field.name) for field in fields(BenchOptions)})
    return options.config({name: value for name, value in values.items() if value is not None}), options


def train_parameters() -> list[inspect.Parameter]:
    """Return the options of `convkit bench train`: its own, --json, and those of `convkit train` that affect speed."""
    trained = dataclass_options(
        Config,
        without=NO_EFFECT_ON_SPEED | SET_BY_BENCH_OPTIONS,
        defaults=TRAIN_DEFAULTS,
        aliases=ALIASES,
        sections=SECTIONS,
        unset_is_none=True,
    )
    return [*dataclass_options(BenchOptions), _json_option(), *trained]


def _data(json_file: Path | None, **values: Any) -> None:
    """Measure data-loading throughput: read rows and images into batches as training does, without a model.

    Times each stage in one process (image headers and tokenizing, decoding, resizing, cutting tiles, collating), then
    whole batches with several numbers of worker processes.
    """
    _require_folder(json_file)
    silence_libraries()
    from rich.console import Console

    from convkit.errors import MissingExtra
    from convkit.utils.progress import progress_bar

    try:
        from convkit.train.bench import dataloading
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Measuring") from None
    result = dataloading.measure_loading(DataLoadingOptions(**values), progress_bar)
    Console().print(*dataloading.render(result), sep="\n")
    _write(json_file, result.to_json())


def _json_option() -> inspect.Parameter:
    option = typer.Option("--json", help="Also write the results to this JSON file.")
    return parameter("json_file", Annotated[Path | None, option], None)


def _require_folder(json_file: Path | None) -> None:
    """Refuse a JSON file that could not be written, before minutes of measuring."""
    if json_file and not json_file.absolute().parent.is_dir():
        raise ConvkitError(f"--json {json_file}: the directory {json_file.parent} does not exist. Create it first.")


def _write(json_file: Path | None, result: dict[str, Any]) -> None:
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


app.command("train", cls=Command, short_help="Measure training throughput with random weights.")(
    with_signature(_train, train_parameters())
)
_METAVARS = {"workers": {"metavar": "<int>"}, "target_rate": {"metavar": "<float>"}}
app.command("data", cls=Command, short_help="Measure data-loading throughput without a model.")(
    with_signature(_data, [*dataclass_options(DataLoadingOptions, extra=_METAVARS), _json_option()])
)

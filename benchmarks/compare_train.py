"""Measure `convkit train` and the recipe's way of training on the same model, rows and device, in one process.

Run: python -m benchmarks.compare_train [--baseline_steps N] [--json FILE] [OPTION of `convkit bench train`...]

FILE is written after each of the two, so the first result is kept if the second never ends.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks.recipe_train import RecipeFamily, RecipeSharding, recipe_config
from convkit.cli.bench import prepare, train_parameters
from convkit.cli.train_options import parameter, with_signature
from convkit.errors import ConvkitError
from convkit.train.bench.method import TrainingMethod
from convkit.train.bench.options import BenchOptions
from convkit.train.bench.results import rounded
from convkit.train.bench.run import StepCounts
from convkit.train.bench.train import Bench
from convkit.train.config import Config
from convkit.train.distributed.world import World, world
from convkit.utils.progress import ProgressBars, no_progress_bar, progress_bar

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def compare(
    config: Config,
    options: BenchOptions,
    baseline_steps: int,
    world: World,
    bars: ProgressBars = no_progress_bar,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measure our training, then the recipe's way, and return both results and the ratio of rows per second.

    Args:
        baseline_steps: measured steps of the recipe's way, after one warm-up step.
        keep: called with the results so far, after each of the two.

    Raises:
        ConvkitError: our training could not be measured. A failure of the recipe's way is part of the result.
    """
    steps = StepCounts(1, baseline_steps, 0)
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        folder = Path(scratch)
        bench = Bench(config, options, world, folder, bars, min_steps=steps.total)
        ours = bench.run()
        found = {**ours.to_json(), "baseline_steps": asdict(steps)}
        keep(found)
        assert config.num_crops is not None
        family = RecipeFamily(folder / "recipe", options.model_size, config.num_crops, world.device, config.seed)
        try:
            theirs = bench.measure(TrainingMethod(recipe_config(config), family, RecipeSharding), steps)
        except ConvkitError as error:
            found["failure"] = f"The recipe's way could not be measured. {error}"
        else:
            ratio = ours.measurement.rows_per_second / theirs.rows_per_second
            found |= {"recipe": theirs.to_json(), "ratio": rounded(ratio)}
        keep(found)
    return found


def _main(baseline_steps: int, json_file: Path | None, **values: Any) -> None:
    """Measure convkit's training and the recipe's way on the same model, rows and device.

    Takes the options of `convkit bench train`.
    """
    config, options = prepare(json_file, values)

    def keep(found: dict[str, Any]) -> None:
        if json_file:
            json_file.write_text(json.dumps(found, indent=2) + "\n")

    with world() as joined:
        found = compare(config, options, baseline_steps, joined, progress_bar if config.tqdm else no_progress_bar, keep)
    if "failure" in found:
        raise ConvkitError(found["failure"])
    for name in ("convkit", "recipe"):
        typer.echo(f"{name}: {found[name]['images_per_second']} images/s, {found[name]['rows_per_second']} rows/s")
    typer.echo(f"ratio: {found['ratio']:.3g}")


_BASELINE_STEPS = typer.Option("--baseline_steps", min=1, help="Measured steps of the recipe's way.")
app.command()(
    with_signature(_main, [parameter("baseline_steps", Annotated[int, _BASELINE_STEPS], 2), *train_parameters()])
)

if __name__ == "__main__":
    app()

"""`convkit bench train`: a method on a workload, and beside it the recipe's way."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from convkit.errors import ConvkitError
from convkit.train.bench import NOT_MEASURED, baseline, gpu
from convkit.train.bench.data import Data, named_data_set, read
from convkit.train.bench.method import Contender
from convkit.train.bench.random_model import Geometry, RandomPhi3V
from convkit.train.bench.results import TERA, Figures, rounded
from convkit.train.bench.run import Steps
from convkit.train.bench.synthetic import write
from convkit.train.bench.workloads import WORKLOADS
from convkit.train.config import Config
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.models.phi3_v.family import Phi3VFamily
from convkit.train.optim.sharding import shard
from convkit.train.setup.precision import compute_dtype
from convkit.utils.progress import ProgressBars, no_progress_bar

OURS, RECIPE = "convkit", "recipe"


@dataclass(frozen=True)
class Bench:
    """What is measured."""

    workload: str
    """One of `WORKLOADS`, or empty where the configuration names a data set."""
    geometry: Geometry
    steps: Steps
    baseline: Steps | None
    """Measure the recipe's way as well, with so many steps."""


@dataclass(frozen=True)
class Result:
    """What came of it."""

    about: dict[str, Any]
    peak_tflops: float
    """Of square matrix products in this very process."""
    figures: dict[str, Figures]
    """By contenders."""
    failure: str = ""
    """Why the recipe's way could not be measured."""

    def recorded(self) -> dict[str, Any]:
        """As JSON."""
        measured = {name: figures.recorded() for name, figures in self.figures.items()}
        ratio = {"ratio": round(self.ratio, 3)} if self.ratio else {}
        return {
            **self.about,
            **({"failure": self.failure} if self.failure else {}),
            "matmul_tflops": rounded(self.peak_tflops),
            **measured,
            **ratio,
        }

    @property
    def ratio(self) -> float | None:
        """How many times as many rows a second as the recipe's way."""
        if RECIPE not in self.figures:
            return None
        return self.figures[OURS].rows_a_second / self.figures[RECIPE].rows_a_second


def bench(
    config: Config,
    what: Bench,
    world: World,
    bars: ProgressBars = no_progress_bar,
    seen: Callable[[Result], None] = lambda result: None,
) -> Result:
    """Measure.

    Args:
        seen: told what is known after each contender: what follows may take long, or end the process.

    Raises:
        ConvkitError: see `Contender.measure`; or the data set cannot be read.
    """
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        folder = Path(scratch)
        peak = gpu.matmul_peak(world.device, compute_dtype(config))
        ours = _contender(RandomPhi3V, config, what, world, folder / OURS, shard)
        data = _data(config, what, ours.family, folder, bars)
        result = Result(_about(config, what, world), peak / TERA, {})
        result.figures[OURS] = ours.measure(data, world, what.steps, peak, bars)
        seen(result)
        if what.baseline:
            theirs = baseline.configured(config)
            other = _contender(baseline.RecipeFamily, theirs, what, world, folder / RECIPE, baseline.RecipeSharding)
            try:
                result.figures[RECIPE] = other.measure(data, world, what.baseline, peak, bars)
            except ConvkitError as error:  # what was measured before is kept
                result = replace(result, failure=f"The recipe's way could not be measured. {error}")
            seen(result)
    return result


def _contender(
    family: type[RandomPhi3V], config: Config, what: Bench, world: World, folder: Path, take: Any
) -> Contender:
    assert config.num_crops is not None
    made = family(folder / "model", what.geometry, config.num_crops, world.device, config.seed)
    run = folder / "run"
    run.mkdir(parents=True)
    return Contender(replace(config, output_dir=run), made, take)


def _data(config: Config, what: Bench, family: Phi3VFamily, folder: Path, bars: ProgressBars) -> Data:
    if not what.workload:
        return read(config.data_dir, config.split, family, config.max_tokens, config.drop_overlong, bars)
    most = max(what.steps.total, what.baseline.total if what.baseline else 0)
    return write(WORKLOADS[what.workload], config.batch_size * most, family, folder / "data", config.seed)


def _about(config: Config, what: Bench, world: World) -> dict[str, Any]:
    hidden = NOT_MEASURED | {"data_dir"} | ({"split"} if what.workload else set())
    options = {name: value for name, value in config.recorded().items() if name not in hidden}
    return {
        "workload": what.workload or named_data_set(config.data_dir),
        "method": config.method,
        "geometry": what.geometry,
        "hardware": hardware(world).model_dump(exclude={"platform"}),
        "versions": versions(),
        "steps": asdict(what.steps),
        **({"baseline_steps": asdict(what.baseline)} if what.baseline else {}),
        "options": options,
    }

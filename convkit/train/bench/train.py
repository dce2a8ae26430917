"""`convkit bench train`: measure a fine-tuning method on a workload."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from convkit.train.bench import gpu
from convkit.train.bench.data import BenchData, dataset_label, index_split
from convkit.train.bench.method import TrainingMethod
from convkit.train.bench.options import NO_EFFECT_ON_SPEED, BenchOptions
from convkit.train.bench.random_model import RandomPhi3V
from convkit.train.bench.results import TERA, Measurement, rounded
from convkit.train.bench.run import StepCounts
from convkit.train.bench.synthetic import write_dataset
from convkit.train.bench.workloads import WORKLOADS
from convkit.train.config import Config
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.setup.precision import compute_dtype
from convkit.utils.progress import ProgressBars, no_progress_bar


@dataclass(frozen=True)
class BenchResult:
    """A measurement, with what was measured and on which hardware."""

    about: dict[str, Any]
    matmul_tflops: float
    """The throughput of square matrix products in this process."""
    measurement: Measurement

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            **self.about,
            "matmul_tflops": rounded(self.matmul_tflops),
            "convkit": self.measurement.to_json(),
        }


def bench(config: Config, options: BenchOptions, world: World, bars: ProgressBars = no_progress_bar) -> BenchResult:
    """Measure the throughput of training.

    Raises:
        ConvkitError: the dataset cannot be read, or see `TrainingMethod.measure`.
    """
    with TemporaryDirectory(prefix="convkit-bench-") as scratch:
        return Bench(config, options, world, Path(scratch), bars).run()


class Bench:
    """Measures training methods on the same rows and the same device.

    Args:
        folder: an empty folder for rows, images and runs.
        min_steps: write synthetic rows for at least this many steps.
    """

    def __init__(
        self, config: Config, options: BenchOptions, world: World, folder: Path, bars: ProgressBars, min_steps: int = 0
    ) -> None:
        assert config.num_crops is not None
        self._config, self._options, self._world, self._bars = config, options, world, bars
        self._folder = folder
        self._steps = StepCounts(options.warmup_steps, options.steps, options.profile_steps)
        self._peak = gpu.matmul_peak(world.device, compute_dtype(config))
        self._family = RandomPhi3V(folder / "model", options.model_size, config.num_crops, world.device, config.seed)
        self._data = self._read_or_write(max(self._steps.total, min_steps))

    def run(self) -> BenchResult:
        """Measure the configured method as `convkit train` trains it."""
        measurement = self.measure(TrainingMethod(self._config, self._family), self._steps)
        return BenchResult(self._about(), self._peak / TERA, measurement)

    def measure(self, method: TrainingMethod, steps: StepCounts) -> Measurement:
        """Measure a method on the same rows."""
        with TemporaryDirectory(dir=self._folder) as run:
            method = replace(method, config=replace(method.config, output_dir=Path(run)))
            return method.measure(self._data, self._world, steps, self._peak, self._bars)

    def _read_or_write(self, steps: int) -> BenchData:
        config, family, data_dir = self._config, self._family, self._options.data_dir
        if data_dir:
            return index_split(data_dir, config.split, family, config.max_tokens, config.drop_overlong, self._bars)
        workload, rows = WORKLOADS[self._options.workload], config.batch_size * steps
        return write_dataset(workload, rows, family, self._folder / "data", config.seed)

    def _about(self) -> dict[str, Any]:
        config, data_dir = self._config, self._options.data_dir
        hidden = NO_EFFECT_ON_SPEED | {"data_dir"} | (set() if data_dir else {"split"})
        return {
            "workload": dataset_label(data_dir) if data_dir else self._options.workload,
            "method": config.method,
            "model_size": self._options.model_size,
            "hardware": hardware(self._world).model_dump(exclude={"platform"}),
            "versions": versions(),
            "steps": asdict(self._steps),
            "options": {name: value for name, value in config.to_json().items() if name not in hidden},
        }

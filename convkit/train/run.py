"""A training run: from its configuration and a validated dataset to the trained model or adapter."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convkit import layout, receipt, run_info
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.run_info import RunInfo, ScheduleSummary
from convkit.train.checkpoint import store
from convkit.train.checkpoint.state import RunState
from convkit.train.config import Config, default_fingerprint
from convkit.train.data import index
from convkit.train.data.index import Dropped, Index
from convkit.train.data.loader import Batch, MicroBatches, batches, worker_errors
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.evaluate.run import EVALUATION
from convkit.train.evaluation import Evaluations, curves, summary
from convkit.train.metrics import trackers
from convkit.train.metrics.log import MetricsLog
from convkit.train.metrics.step_log import StepLog
from convkit.train.metrics.throughput import Throughput
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import fingerprint
from convkit.train.optim.sharding import shard
from convkit.train.preflight import memory
from convkit.train.preflight.checkpoint import check_checkpoint
from convkit.train.setup import requirements, trainable
from convkit.train.setup.determinism import deterministic
from convkit.train.setup.precision import compute_dtype
from convkit.train.trainer import StepResult, Stopped, Trainer
from convkit.utils.files import write_atomic
from convkit.utils.progress import ProgressBars, no_progress_bar
from convkit.utils.text import pluralize

CONFIG, DROPPED = "config.json", "dropped.jsonl"
_MAX_NAMED = 3
"""Dropped rows that the log names."""
Log = Callable[[str], None]


def train(
    config: Config,
    family: ModelFamily,
    world: World,
    bars: ProgressBars = no_progress_bar,
    log: Log = print,
    *,
    log_steps: bool = False,
) -> None:
    """Train as configured, from the start or from the last checkpoint.

    Args:
        log: receives one line of text per event, on rank 0.
        log_steps: log a line every `logging_steps` steps, in place of the progress bar of training.

    Raises:
        ConvkitError: the dataset has no current receipt, the run directory holds another run, or training fails.
        Stopped: SIGTERM arrived; a checkpoint was written after the step.
    """
    trackers.require(config)
    requirements.check_requirements(config)
    with deterministic(config.deterministic), worker_errors():
        _train(config, family, world, bars, log, log_steps)


def _train(config: Config, family: ModelFamily, world: World, bars: ProgressBars, log: Log, log_steps: bool) -> None:
    if not world.first:
        log = _discard
    bars = bars if world.first and config.tqdm else no_progress_bar
    current, rows = world.from_first(lambda: _read_dataset(config, family, bars))
    schedule = BatchSchedule(rows.tokens, _schedule_options(config, family, len(rows.dropped)))
    run_fingerprint = _run_fingerprint(config, current, schedule)
    checkpoint = world.from_first(lambda: _open_run(config, run_fingerprint, rows.dropped))
    world.from_first(lambda: run_info.write(config.output_dir, _record(config, current, schedule, world)))
    if rows.dropped:
        log(_describe_dropped(config, rows))
    log(
        f"{config.method}: {pluralize(len(rows), 'row')} x {pluralize(config.num_train_epochs, 'epoch')} = "
        f"{pluralize(schedule.rows, 'row')} planned in {pluralize(schedule.steps, 'step')}; "
        f"schedule {schedule.digest[:12]}"
    )
    evaluations = Evaluations(config, family, world, schedule.steps, bars)
    sharding = shard(trainable.load_for_training(family, config).train(), config, world)
    trainer = Trainer(sharding, schedule, rows, config, world)
    images = config.data_dir / layout.IMAGES
    micro_batches = MicroBatches(rows, images, family, add_dummy_sample=sharding.requires_lockstep)
    found = memory.preflight(trainer, micro_batches, family)
    for line in memory.lines(found):
        log(line)
    if checkpoint:
        _restore(*checkpoint, trainer, log)
    elif config.check_checkpoint:  # a checkpoint that was restored needs no check
        log(check_checkpoint(trainer, family))
    throughput = Throughput(schedule, rows, config, world, found.flops_per_token)
    step_log = StepLog(config.logging_steps, schedule.steps, log) if log_steps else None
    loop = _Loop(trainer, micro_batches, family, run_fingerprint, throughput, evaluations, bars, log, step_log)
    done = loop.run(checkpoint[1] if checkpoint else None)
    if done != schedule.rows:
        raise ConvkitError(f"{schedule.rows:,} rows were planned, but {done:,} were trained on. Please report this.")
    if skipped := sharding.scale.skipped:
        log(f"{skipped:,} of {schedule.steps:,} steps were skipped: their gradients overflowed float16")
    log(f"{schedule.rows:,} rows planned = {done:,} trained; {_save_final(trainer, family)}")


def _discard(text: str) -> None:
    """Log nothing, on ranks other than 0."""


def _read_dataset(config: Config, family: ModelFamily, bars: ProgressBars) -> tuple[receipt.Receipt, Index]:
    """Check the validation receipt, then read every row once."""
    current = receipt.require(config.data_dir, family.profile)
    dataset, images = Dataset.open(config.data_dir), config.data_dir / layout.IMAGES
    dataset.path(config.eval_split or config.split)  # fails early if there is no such split
    with bars("counting tokens", "rows") as update:
        return current, index.build(
            dataset,
            config.split,
            lambda row: family.length(row, images),
            config.max_tokens,
            update,
            config.drop_overlong,
        )


def _describe_dropped(config: Config, rows: Index) -> str:
    """Return a line about the dropped rows; dropped.jsonl lists all of them."""
    total, count = len(rows) + len(rows.dropped), len(rows.dropped)
    named = [f"{row.id!r} ({row.tokens:,})" for row in rows.dropped[:_MAX_NAMED]] + ["…"] * (count > _MAX_NAMED)
    return (
        f"{total:,} rows = {len(rows):,} to train on + {count:,} dropped for more than {config.max_tokens:,} tokens: "
        f"{', '.join(named)}; see {config.output_dir / DROPPED}"
    )


def _schedule_options(config: Config, family: ModelFamily, dropped: int) -> ScheduleOptions:
    return ScheduleOptions(
        epochs=config.num_train_epochs,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        max_rows=config.batch_size_per_gpu,
        seed=config.seed,
        padded=not family.supports_packing,
        dropped=dropped,
    )


def _run_fingerprint(config: Config, current: receipt.Receipt, schedule: BatchSchedule) -> dict[str, Any]:
    """Return everything that a run's weights depend on, besides the world size."""
    rows = Dataset.open(config.data_dir).path(config.split).name
    return {
        "rows": current.rows[rows].sha256,
        "images": current.media.digest,
        "model": fingerprint(config.model),
        **config.resume_fingerprint(),
        "schedule": schedule.digest,
    }


def _record(config: Config, current: receipt.Receipt, schedule: BatchSchedule, world: World) -> RunInfo:
    planned = ScheduleSummary(
        method=config.method,
        rows=len(schedule.lengths),
        dropped=schedule.options.dropped,
        epochs=config.num_train_epochs,
        steps=schedule.steps,
        micro_batches=schedule.count_micro_batches(world.size),
        tokens=sum(schedule.lengths) * config.num_train_epochs,
        digest=schedule.digest,
    )
    return RunInfo(
        versions=versions(),
        hardware=hardware(world),
        data_dir=config.data_dir.absolute(),
        split=config.split,
        manifest=Dataset.open(config.data_dir).manifest,
        receipt=current,
        schedule=planned,
    )


def _open_run(
    config: Config, run_fingerprint: dict[str, Any], dropped: Sequence[Dropped]
) -> tuple[Path, RunState] | None:
    """Create the run directory, or return the checkpoint to resume from, with its state."""
    run = config.output_dir
    store.clean(run)
    found = store.checkpoints(run)
    if found and config.resume == "no":
        raise ConvkitError(
            f"{run} contains checkpoints of an earlier run. Add --resume auto to resume it, "
            "or choose another --output_dir."
        )
    if (run / EVALUATION).exists():
        raise ConvkitError(f"{run} holds {EVALUATION}, of convkit evaluate. Choose another --output_dir.")
    checkpoint = None
    if found:
        checkpoint = found[-1], store.read_state(found[-1])
        _require_same_run(*checkpoint, run_fingerprint)
        store.prune(run, config.save_total_limit)  # a killed run may have left one more
    run.mkdir(parents=True, exist_ok=True)
    write_atomic(run / CONFIG, json.dumps(config.to_json(), indent=2).encode() + b"\n", run)
    if dropped:
        write_atomic(run / DROPPED, b"".join(json.dumps(row._asdict()).encode() + b"\n" for row in dropped), run)
    return checkpoint


def _require_same_run(path: Path, state: RunState, run_fingerprint: dict[str, Any]) -> None:
    saved = default_fingerprint() | state.fingerprint  # the default of an option that is newer than the checkpoint
    differences = [
        f"{name} {saved.get(name)!r} there, {run_fingerprint.get(name)!r} here"
        for name in dict.fromkeys([*run_fingerprint, *saved])
        if saved.get(name) != run_fingerprint.get(name)
    ]
    if differences:
        raise ConvkitError(
            f"{path} belongs to another run: {'; '.join(differences)}. Use the options and data that the run was "
            "started with, or choose another --output_dir."
        )


def _restore(path: Path, state: RunState, trainer: Trainer, log: Log) -> None:
    store.load(path, trainer.sharding)
    trainer.sharding.scale.load_state(state.loss_scale)
    log(f"resuming after step {state.step:,} of {trainer.schedule.steps:,}")
    before = state.layout
    now = replace(state, processes=trainer.world.size, sharding=trainer.sharding.name).layout
    if before != now:
        log(
            f"the checkpoint is from {before}, this run has {now}: the rows of each step are the same, but sums are "
            "rounded in another order"
        )


@dataclass(frozen=True)
class _Loop:
    """The steps of a run, with its checkpoints and evaluations."""

    trainer: Trainer
    micro_batches: MicroBatches
    family: ModelFamily
    run_fingerprint: dict[str, Any]
    throughput: Throughput
    evaluations: Evaluations
    bars: ProgressBars
    log: Log
    step_log: StepLog | None

    def run(self, start: RunState | None) -> int:
        """Run all remaining steps; return the rows trained on, including those before `start`."""
        trainer, schedule = self.trainer, self.trainer.schedule
        first, rows = (start.step, start.rows) if start else (0, 0)
        order = (micro_batch for step in range(first, schedule.steps) for micro_batch in trainer.micro_batches(step))
        step_logs, bars = ([self.step_log], no_progress_bar) if self.step_log else ([], self.bars)
        with (
            _stop_requested() as stop_requested,
            MetricsLog(trainer.config, first, self.throughput, trainer.world, step_logs) as metrics,
        ):
            self.evaluations.remove_after(first)
            self._evaluate(first, metrics, stop_requested)
            reader = batches(self.micro_batches, order, trainer.config.dataloader_num_workers)
            with closing(reader) as stream, bars("training", "rows", self.throughput.text) as update:
                for step in range(first, schedule.steps):
                    result = self._step(step, stream, metrics, stop_requested)
                    rows += result.rows
                    update(rows, schedule.rows)
                    self._save_and_evaluate(step + 1, rows, result.stopped, metrics, stop_requested)
        return rows

    def _step(
        self, step: int, stream: Iterator[Batch], metrics: MetricsLog, stop_requested: Callable[[], bool]
    ) -> StepResult:
        """Train on one global batch and log its metrics."""
        began = time.monotonic()
        result = self.trainer.step(step, stream, stop_requested)
        metrics.step(step, self.trainer.schedule, self.trainer.index, result, time.monotonic() - began)
        return result

    def _save_and_evaluate(
        self, done: int, rows: int, stopped: bool, metrics: MetricsLog, stop_requested: Callable[[], bool]
    ) -> None:
        """Save a checkpoint and evaluate where they are due after `done` steps.

        Raises:
            Stopped: the run should stop; it was saved.
        """
        steps = self.trainer.schedule.steps
        due = done == steps or done % self.trainer.config.save_steps == 0 or stopped
        if due:
            self._save(done, rows)
        if stopped and done < steps:
            raise Stopped(f"stopped after step {done:,} of {steps:,}. Resume with --resume auto.")
        try:
            self._evaluate(done, metrics, stop_requested)
        except Stopped:
            if not due:
                self._save(done, rows)
            raise

    def _save(self, step: int, rows: int) -> None:
        trainer, config = self.trainer, self.trainer.config
        state = RunState(
            step=step,
            rows=rows,
            fingerprint=self.run_fingerprint,
            processes=trainer.world.size,
            sharding=trainer.sharding.name,
            loss_scale=trainer.sharding.scale.state(),
        )
        store.save(
            config.output_dir,
            state,
            trainer.sharding,
            self.family,
            first=trainer.world.first,
            dtype=compute_dtype(config),
            keep=config.save_total_limit,
        )
        trainer.world.wait()  # here, with our long timeout: DeepSpeed's process groups have a short one

    def _evaluate(self, step: int, metrics: MetricsLog, stop_requested: Callable[[], bool]) -> None:
        if found := self.evaluations(step, self.trainer.sharding.model, stop_requested):
            metrics.evaluation(step, curves(found))
            for line in summary(found):
                self.log(f"after step {step:,} of {self.trainer.schedule.steps:,}: {line}")


def _save_final(trainer: Trainer, family: ModelFamily) -> Path:
    config, first = trainer.config, trainer.world.first
    return store.save_final(config.output_dir, trainer.sharding, family, first=first, dtype=compute_dtype(config))


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM has arrived, as a scheduler sends it."""
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)

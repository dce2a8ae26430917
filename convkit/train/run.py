"""A training run from its configuration to the weights that come of it."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convkit import layout, receipt, run_info
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.run_info import Planned, Record
from convkit.train.checkpoint import store
from convkit.train.config import Config, defaults
from convkit.train.data import index
from convkit.train.data.index import Dropped, Index
from convkit.train.data.loader import MicroBatches, batches, worker_errors
from convkit.train.data.schedule import BatchSchedule, ScheduleOptions
from convkit.train.distributed.environment import hardware, versions
from convkit.train.distributed.world import World
from convkit.train.evaluate.run import EVALUATION
from convkit.train.evaluation import Evaluations, curves, summary
from convkit.train.metrics import trackers
from convkit.train.metrics.log import Log
from convkit.train.metrics.throughput import Throughput
from convkit.train.models.family import ModelFamily
from convkit.train.models.fingerprint import fingerprint
from convkit.train.optim.sharding import shard
from convkit.train.preflight import memory
from convkit.train.preflight.checkpoint import trial
from convkit.train.setup import requirements, trainable
from convkit.train.setup.determinism import deterministic
from convkit.train.setup.precision import compute_dtype
from convkit.train.trainer import Stopped, Trainer
from convkit.utils.files import write_atomic
from convkit.utils.progress import ProgressBars, no_progress_bar

CONFIG, DROPPED = "config.json", "dropped.jsonl"
_NAMED = 3
Say = Callable[[str], None]


def train(
    config: Config, family: ModelFamily, world: World, bars: ProgressBars = no_progress_bar, say: Say = print
) -> None:
    """Train as configured, from the start or from the last checkpoint.

    Args:
        say: told in words what is done, on the first process.

    Raises:
        ConvkitError: the data may not be trained on, the run directory holds another run, or training fails.
        Stopped: SIGTERM came; a checkpoint was written after the step.
    """
    trackers.require(config)
    requirements.check_requirements(config)
    with deterministic(config.deterministic), worker_errors():
        _train(config, family, world, bars, say)


def _train(config: Config, family: ModelFamily, world: World, bars: ProgressBars, say: Say) -> None:
    speak: Say = say if world.first else lambda text: None
    bars = bars if world.first and config.tqdm else no_progress_bar
    seen, rows = world.from_first(lambda: _look(config, family, bars))
    schedule = BatchSchedule(rows.tokens, _plan_options(config, family, len(rows.dropped)))
    of = _identity(config, seen, schedule)
    start = world.from_first(lambda: _open(config, of, rows.dropped))
    world.from_first(lambda: run_info.write(config.output_dir, _record(config, seen, schedule, world)))
    if rows.dropped:
        speak(_told(config, rows))
    speak(
        f"{config.method}: {len(rows):,} rows x {config.num_train_epochs} epochs = {schedule.rows:,} rows planned in "
        f"{schedule.steps:,} steps; schedule {schedule.digest[:12]}"
    )
    evaluations = Evaluations(config, family, world, schedule.steps, bars)
    shards = shard(trainable.load_for_training(family, config).train(), config, world)
    trainer = Trainer(shards, schedule, rows, config, world)
    micro_batches = MicroBatches(
        rows, config.data_dir / layout.IMAGES, family, add_dummy_sample=shards.requires_lockstep
    )
    found = memory.preflight(trainer, micro_batches, family)
    for line in memory.lines(found):
        speak(line)
    step, done = _restore(start, trainer, speak) if start else (0, 0)
    if config.check_checkpoint and not start:  # one that was gone on with is proof enough
        speak(trial(trainer, family))
    throughput = Throughput(schedule, rows, config, world, found.flops_per_token)
    done = _steps(_Parts(trainer, micro_batches, family, of, throughput, evaluations, bars, speak), step, done)
    if done != schedule.rows:
        raise ConvkitError(f"{schedule.rows:,} rows were planned, but {done:,} were trained on. Please report this.")
    if skipped := shards.scale.skipped:
        speak(f"{skipped:,} of {schedule.steps:,} steps were skipped: their gradients exceeded float16")
    speak(f"{schedule.rows:,} rows planned = {done:,} trained; {_finish(trainer, family)}")


def _look(config: Config, family: ModelFamily, bars: ProgressBars) -> tuple[receipt.Receipt, Index]:
    """The gate, and then every row once."""
    seen = receipt.require(config.data_dir, family.profile)
    dataset, images = Dataset.open(config.data_dir), config.data_dir / layout.IMAGES
    dataset.path(config.eval_split or config.split)  # that there is such a split, before all rows are read
    with bars("counting tokens", "rows") as update:
        return seen, index.build(
            dataset,
            config.split,
            lambda row: family.length(row, images),
            config.max_tokens,
            update,
            config.drop_overlong,
        )


def _told(config: Config, rows: Index) -> str:
    """What was left out, in words; dropped.jsonl has all of it."""
    total, count = len(rows) + len(rows.dropped), len(rows.dropped)
    named = [f"{row.id!r} ({row.tokens:,})" for row in rows.dropped[:_NAMED]] + ["…"] * (count > _NAMED)
    return (
        f"{total:,} rows = {len(rows):,} to train on + {count:,} dropped for more than {config.max_tokens:,} tokens: "
        f"{', '.join(named)}; see {config.output_dir / DROPPED}"
    )


def _plan_options(config: Config, family: ModelFamily, dropped: int) -> ScheduleOptions:
    return ScheduleOptions(
        epochs=config.num_train_epochs,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens,
        max_rows=config.batch_size_per_gpu,
        seed=config.seed,
        padded=not family.supports_packing,
        dropped=dropped,
    )


def _identity(config: Config, seen: receipt.Receipt, schedule: BatchSchedule) -> dict[str, Any]:
    """All that the weights of a run are a function of, beside the number of its processes."""
    rows = Dataset.open(config.data_dir).path(config.split).name
    return {
        "rows": seen.rows[rows].sha256,
        "images": seen.media.digest,
        "model": fingerprint(config.model),
        **config.decisive(),
        "schedule": schedule.digest,
    }


def _record(config: Config, seen: receipt.Receipt, schedule: BatchSchedule, world: World) -> Record:
    planned = Planned(
        method=config.method,
        rows=len(schedule.lengths),
        dropped=schedule.options.dropped,
        epochs=config.num_train_epochs,
        steps=schedule.steps,
        packs=schedule.count_micro_batches(world.size),
        tokens=sum(schedule.lengths) * config.num_train_epochs,
        digest=schedule.digest,
    )
    return Record(
        versions=versions(),
        hardware=hardware(world),
        data_dir=config.data_dir.absolute(),
        split=config.split,
        manifest=Dataset.open(config.data_dir).manifest,
        receipt=seen,
        plan=planned,
    )


def _open(config: Config, of: dict[str, Any], dropped: Sequence[Dropped]) -> Path | None:
    """Make the run directory, or find the checkpoint to go on from; None for a start from the beginning."""
    run = config.output_dir
    store.clean(run)
    found = store.checkpoints(run)
    if found and config.resume == "no":
        raise ConvkitError(
            f"{run} holds checkpoints of a run. Add --resume auto to go on with it, or choose another --output_dir."
        )
    if (run / EVALUATION).exists():
        raise ConvkitError(f"{run} holds {EVALUATION}, of convkit evaluate. Choose another --output_dir.")
    if found:
        _refuse_other(found[-1], store.read_state(found[-1])["of"], of)
        store.prune(run, config.save_total_limit)  # a killed run may have left one more
    run.mkdir(parents=True, exist_ok=True)
    write_atomic(run / CONFIG, json.dumps(config.recorded(), indent=2).encode() + b"\n", run)
    if dropped:
        write_atomic(run / DROPPED, b"".join(json.dumps(row._asdict()).encode() + b"\n" for row in dropped), run)
    return found[-1] if found else None


def _refuse_other(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = defaults() | found  # an option that was not there yet
    differences = [
        f"{name} {found.get(name)!r} there, {wanted.get(name)!r} here"
        for name in dict.fromkeys([*wanted, *found])
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ConvkitError(
            f"{path} is of another run: {'; '.join(differences)}. Give it what it was begun with, or choose another "
            "--output_dir."
        )


def _restore(path: Path, trainer: Trainer, speak: Say) -> tuple[int, int]:
    state = store.read_state(path)
    store.load(path, trainer.sharding)
    trainer.sharding.scale.load_state(state.get("loss_scale", {}))
    speak(f"going on after step {state['step']:,} of {trainer.schedule.steps:,}")
    before, now = (state["processes"], state.get("sharding", "")), (trainer.world.size, trainer.sharding.name)
    if before != now:
        told = [f"{processes} processes{sharding and f' with {sharding}'}" for processes, sharding in (before, now)]
        speak(
            f"it was begun on {told[0]} and goes on on {told[1]}: the rows of each step are the same, sums are rounded "
            "in another order"
        )
    return state["step"], state["rows"]


@dataclass(frozen=True)
class _Parts:
    """What the steps of a run need."""

    trainer: Trainer
    micro_batches: MicroBatches
    family: ModelFamily
    of: dict[str, Any]
    throughput: Throughput
    evaluations: Evaluations
    bars: ProgressBars
    speak: Say


def _steps(parts: _Parts, first: int, rows: int) -> int:
    """All steps from `first` on; returns how many rows were trained on, `rows` of them before."""
    trainer, schedule = parts.trainer, parts.trainer.schedule
    config, world = trainer.config, trainer.world
    order = (micro_batch for step in range(first, schedule.steps) for micro_batch in trainer.micro_batches(step))
    with _asked_to_stop() as asked, Log(config, first, parts.throughput, world) as log:
        parts.evaluations.forget(first)
        _evaluate(parts, log, first, asked)
        reader = batches(parts.micro_batches, order, config.dataloader_num_workers)
        with closing(reader) as stream, parts.bars("training", "rows", parts.throughput.text) as update:
            for step in range(first, schedule.steps):
                began = time.monotonic()
                outcome = trainer.step(step, stream, lambda: bool(asked))
                log.step(step, schedule, trainer.index, outcome, time.monotonic() - began)
                rows += outcome.rows
                update(rows, schedule.rows)
                done = step + 1
                saved = done == schedule.steps or done % config.save_steps == 0 or outcome.stopped
                if saved:
                    _save(parts, done, rows)
                if outcome.stopped and done < schedule.steps:
                    raise Stopped(f"stopped after step {done:,} of {schedule.steps:,}. Go on with --resume auto.")
                try:
                    _evaluate(parts, log, done, asked)
                except Stopped:
                    if not saved:
                        _save(parts, done, rows)
                    raise
    return rows


def _save(parts: _Parts, step: int, rows: int) -> None:
    trainer, config, first = parts.trainer, parts.trainer.config, parts.trainer.world.first
    how = {
        "processes": trainer.world.size,
        "sharding": trainer.sharding.name,
        "loss_scale": trainer.sharding.scale.state(),
    }
    state = {"step": step, "rows": rows, "of": parts.of, **how}
    kept = config.save_total_limit
    store.save(
        config.output_dir, state, trainer.sharding, parts.family, first=first, dtype=compute_dtype(config), keep=kept
    )
    trainer.world.wait()  # here, where all are patient: groups that DeepSpeed makes are not


def _evaluate(parts: _Parts, log: Log, step: int, asked: list[int]) -> None:
    if found := parts.evaluations(step, parts.trainer.sharding.model, lambda: bool(asked)):
        log.evaluated(step, curves(found))
        for line in summary(found):
            parts.speak(f"after step {step:,} of {parts.trainer.schedule.steps:,}: {line}")


def _finish(trainer: Trainer, family: ModelFamily) -> Path:
    config, first = trainer.config, trainer.world.first
    return store.save_final(config.output_dir, trainer.sharding, family, first=first, dtype=compute_dtype(config))


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that is filled when a scheduler's signal comes."""
    asked: list[int] = []
    usual = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, usual)

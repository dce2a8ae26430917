"""The tables of a report: status, options, environment, data, and scores of evaluations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from convkit.metrics.results import MetricScore, SourceScores
from convkit.report.run_directory import Evaluation, Run, format_option
from convkit.run_info import RunInfo, ScheduleSummary


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its header."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def status(run: Run) -> str:
    """Return a sentence that says whether the run is finished."""
    planned = run.info and run.info.schedule
    total = f" of {planned.steps:,}" if planned else ""
    if run.kind == "evaluation":
        return "Finished." if run.finished else "Not finished. Run the same command to resume."
    last = run.steps[-1].step if run.steps else 0
    if run.finished:
        return f"Finished after step {last:,}{total}."
    return f"Not finished: results up to step {last:,}{total}. Run the same command with --resume auto to continue."


def options_table(run: Run) -> Table:
    """Return the options of the run."""
    return Table("Options", ("Option", "Value"), [(name, format_option(value)) for name, value in run.options.items()])


def environment_table(run: Run) -> Table | None:
    """Return versions and hardware, if the run has a run.json."""
    if run.info is None:
        return None
    hardware = run.info.hardware
    rows = [
        ("device", hardware.device),
        ("processes", f"{hardware.processes:,}"),
        ("CPUs", f"{hardware.cpus:,}"),
        ("platform", hardware.platform),
        *run.info.versions.items(),
    ]
    return Table("Versions and hardware", ("Property", "Value"), rows)


def data_tables(run: Run) -> list[Table]:
    """Return the row counts of conversion, splits and training, and the validation receipt."""
    tables = [_conversion(run.info), _splits(run.info), _receipt(run.info)] if run.info else []
    if run.kind == "training":
        schedule = run.info and run.info.schedule
        counts = [*(_planned(schedule) if schedule else _dropped(run.dropped)), *_trained(run)]
        tables.append(Table("Training", ("Quantity", "Count"), counts))
    return tables


def _conversion(info: RunInfo) -> Table:
    manifest, made = info.manifest, info.manifest.accounting
    caption = f"{manifest.name}, by convkit convert {manifest.converter.name}: {made.unit}s of {manifest.source.name}"
    counts = [
        ("read", made.read),
        ("written as rows", made.written),
        ("quarantined", made.quarantined),
        *((f"excluded: {reason}", count) for reason, count in made.excluded.items()),
        *((f"note: {note}", count) for note, count in made.notes.items()),
    ]
    return Table(caption, ("Outcome", "Count"), _formatted(counts))


def _splits(info: RunInfo) -> Table:
    rows = [
        (name, f"{split.rows:,}", f"{split.turns:,}", f"{split.images:,}")
        for name, split in info.manifest.splits.items()
    ]
    return Table("Splits", ("Split", "Rows", "Turns", "Images"), rows)


def _receipt(info: RunInfo) -> Table:
    receipt = info.receipt
    rows = [
        ("digest", receipt.digest),
        ("validated by convkit", receipt.convkit),
        ("token profile", receipt.profile or "-"),
        ("rules", f"{len(receipt.rules):,}"),
        *((f"warnings of {code}", f"{count:,}") for code, count in receipt.warnings.items()),
    ]
    return Table("Receipt", ("Property", "Value"), rows)


def _planned(schedule: ScheduleSummary) -> list[tuple[str, str]]:
    counts = [
        ("rows of the split", schedule.rows + schedule.dropped),
        ("dropped because they are too long", schedule.dropped),
        ("rows to train on", schedule.rows),
        ("epochs", schedule.epochs),
        ("rows planned", schedule.rows * schedule.epochs),
        ("steps planned", schedule.steps),
        ("micro-batches planned", schedule.micro_batches),
        ("tokens planned", schedule.tokens),
    ]
    return _formatted(counts)


def _dropped(count: int) -> list[tuple[str, str]]:
    return _formatted([("dropped because they are too long", count)] * bool(count))


def _trained(run: Run) -> Iterator[tuple[str, str]]:
    counts = [
        ("rows trained on", sum(step.rows for step in run.steps)),
        ("steps done", len(run.steps)),
        ("tokens", sum(step.tokens for step in run.steps)),
        ("supervised tokens", sum(step.supervised_tokens for step in run.steps)),
    ]
    yield from _formatted(counts)
    yield "seconds in steps", f"{sum(step.seconds for step in run.steps):,.1f}"
    if skipped := sum(step.skipped for step in run.steps):
        yield "steps skipped because of float16 overflow", f"{skipped:,}"


def _formatted(counts: Iterable[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in counts]


def score_tables(run: Run) -> list[Table]:
    """Return a table of metrics by evaluation for each dataset."""
    evaluations = _first_and_last(run.evaluations)
    names = dict.fromkeys(source.source for evaluation in evaluations for source in evaluation.scores.sources)
    return [_score_table(name, evaluations) for name in names]


def _first_and_last(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return the first and last evaluation during training, and all separate evaluations."""
    own = [evaluation for evaluation in evaluations if evaluation.step is not None]
    return [*(own if len(own) < 2 else (own[0], own[-1])), *(e for e in evaluations if e.step is None)]


def _score_table(name: str, evaluations: Sequence[Evaluation]) -> Table:
    found = [(e.name, e.scores, s) for e in evaluations for s in e.scores.sources if s.source == name]
    metrics = dict.fromkeys(metric.name for _, _, source in found for metric in source.metrics)
    head = ["Metric", *(evaluation for evaluation, _, _ in found), "Items"]
    rows = [
        (metric, *(_value(_metric(source, metric)) for _, _, source in found), _count(found[-1][2], metric))
        for metric in metrics
    ]
    return Table(f"{name}, with {found[0][1].confidence:.0%} bootstrap intervals", head, rows)


def _metric(source: SourceScores, name: str) -> MetricScore | None:
    return next((metric for metric in source.metrics if metric.name == name), None)


def _value(metric: MetricScore | None) -> str:
    if metric is None:
        return "-"
    if metric.value is None:
        return metric.reason or "-"
    interval = "" if metric.low is None else f" ({metric.low:.4f} to {metric.high:.4f})"
    return f"{metric.value:.4f}{interval}"


def _count(source: SourceScores, name: str) -> str:
    metric = _metric(source, name)
    return f"{metric.count:,}" if metric else "-"

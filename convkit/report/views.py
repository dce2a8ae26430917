"""What is shown of a run, as tables and charts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convkit.metrics.classes import ClassScore, confusions
from convkit.metrics.results import MetricScore, SourceScores
from convkit.report.curves import Chart, Point, chart, number
from convkit.report.load import Evaluation, Run, shown

MAX_CLASSES = 200
MAX_MATRIX = 24
"""Classes of which the whole confusion matrix is shown; of more, the most frequent confusions."""
MAX_CONFUSIONS = 40
NO_CLASS = "(no class)"
_SHADES = 9
_CURVES = {
    # name: (title, whether it is noisy)
    "loss": ("Loss", True),
    "learning_rate": ("Learning rate", False),
    "grad_norm": ("Gradient norm, before clipping", True),
    "images_per_second": ("Images a second", True),
    "memory_gib": ("Memory at most, GiB", False),
}


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each is its header."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Cell:
    """Of a confusion matrix."""

    turns: int
    shade: int
    """0 to 9, by the share of the row."""
    right: bool


@dataclass(frozen=True)
class Matrix:
    """Gold answers by predictions."""

    names: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Classes:
    """What is shown of a data set whose answers are classes."""

    title: str
    table: Table
    left_out: int
    matrix: Matrix | None
    confusions: Table | None


def status(run: Run) -> str:
    """Whether the run came to its end, in a sentence."""
    planned = run.record and run.record.plan
    of = f" of {planned.steps:,}" if planned else ""
    if run.kind == "evaluation":
        return "Finished." if run.finished else "Not finished: the same command goes on with it."
    last = run.steps[-1].step if run.steps else 0
    if run.finished:
        return f"Finished after step {last:,}{of}."
    return f"Not finished: this is what there is after step {last:,}{of}. The same command with --resume auto goes on."


def options(run: Run) -> Table:
    """What the run was told."""
    return Table("Options", ("Option", "Value"), [(name, shown(value)) for name, value in run.options.items()])


def surroundings(run: Run) -> Table | None:
    """Versions and hardware."""
    if run.record is None:
        return None
    hardware = run.record.hardware
    rows = [
        ("device", hardware.device),
        ("processes", f"{hardware.processes:,}"),
        ("CPUs", f"{hardware.cpus:,}"),
        ("platform", hardware.platform),
        *run.record.versions.items(),
    ]
    return Table("Versions and hardware", ("What", "Value"), rows)


def accounting(run: Run) -> list[Table]:
    """Where all rows of the data set come from, and what became of them."""
    return list(_accounting(run))


def _accounting(run: Run) -> Iterator[Table]:
    if run.record is not None:
        manifest, receipt = run.record.manifest, run.record.receipt
        made = manifest.accounting
        rows = [("read", f"{made.read:,}"), ("written as rows", f"{made.written:,}")]
        rows += [("quarantined", f"{made.quarantined:,}")]
        rows += [(f"excluded: {why}", f"{count:,}") for why, count in made.excluded.items()]
        rows += [(f"note: {note}", f"{count:,}") for note, count in made.notes.items()]
        caption = (
            f"{manifest.name}, by convkit convert {manifest.converter.name}: {made.unit}s of {manifest.source.name}"
        )
        yield Table(caption, ("What", "Count"), rows)
        splits = [
            (name, f"{split.rows:,}", f"{split.turns:,}", f"{split.images:,}")
            for name, split in manifest.splits.items()
        ]
        yield Table("Splits", ("Split", "Rows", "Turns", "Images"), splits)
        facts = [
            ("digest", receipt.digest),
            ("validated by convkit", receipt.convkit),
            ("for the model", receipt.profile or "-"),
            ("rules", f"{len(receipt.rules):,}"),
            *((f"warnings of {code}", f"{count:,}") for code, count in receipt.warnings.items()),
        ]
        yield Table("Receipt", ("What", "Value"), facts)
    if run.kind == "training":
        yield Table("Training", ("What", "Count"), list(_trained(run)))


def _trained(run: Run) -> Iterator[tuple[str, str]]:
    planned = run.record and run.record.plan
    if planned:
        yield "rows of the split", f"{planned.rows + planned.dropped:,}"
        yield "dropped, for they are too long", f"{planned.dropped:,}"
        yield "to train on", f"{planned.rows:,}"
        yield "epochs", f"{planned.epochs:,}"
        yield "rows planned", f"{planned.rows * planned.epochs:,}"
        yield "steps planned", f"{planned.steps:,}"
        yield "packs planned", f"{planned.packs:,}"
        yield "tokens planned", f"{planned.tokens:,}"
    elif run.dropped:
        yield "dropped, for they are too long", f"{run.dropped:,}"
    yield "rows trained on", f"{sum(step.rows for step in run.steps):,}"
    yield "steps done", f"{len(run.steps):,}"
    yield "tokens", f"{sum(step.tokens for step in run.steps):,}"
    yield "tokens with a loss", f"{sum(step.supervised_tokens for step in run.steps):,}"
    yield "seconds in steps", f"{sum(step.seconds for step in run.steps):,.1f}"
    if skipped := sum(step.skipped for step in run.steps):
        yield "steps skipped, for float16 did not hold the gradients", f"{skipped:,}"


def charts(run: Run) -> list[Chart]:
    """Curves of the steps, and of the evaluations on the way."""
    found = []
    for name, (title, noisy) in _CURVES.items():
        values = [(float(step.step), getattr(step, name)) for step in run.steps]
        if points := [(x, y) for x, y in values if y is not None]:
            found.append(chart(title, {title: points}, smooth=noisy))
    return [*found, *_evaluation_charts([e for e in run.evaluations if e.step is not None])]


def _evaluation_charts(evaluations: Sequence[Evaluation]) -> Iterator[Chart]:
    if len(evaluations) < 2:
        return
    series: dict[str, dict[str, list[Point]]] = {}
    for evaluation in evaluations:
        for source in evaluation.scores.sources:
            for metric in source.metrics:
                if metric.value is not None:
                    points = series.setdefault(source.source, {}).setdefault(metric.name, [])
                    points.append((float(evaluation.step or 0), metric.value))
    for source_name, curves in series.items():
        yield chart(f"Scores on {source_name}", dict(curves), marked=True)


def scores(run: Run) -> list[Table]:
    """A table for each data set: its metrics, by evaluation."""
    shown_ = _first_and_last(run.evaluations)
    names = dict.fromkeys(source.source for evaluation in shown_ for source in evaluation.scores.sources)
    return [_scores(name, shown_) for name in names]


def _first_and_last(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Of those on the way the first and the last, and all others; curves have the rest."""
    own = [evaluation for evaluation in evaluations if evaluation.step is not None]
    return [*(own if len(own) < 2 else (own[0], own[-1])), *(e for e in evaluations if e.step is None)]


def _scores(name: str, evaluations: Sequence[Evaluation]) -> Table:
    found = [(e.name, e.scores, s) for e in evaluations for s in e.scores.sources if s.source == name]
    metrics = dict.fromkeys(metric.name for _, _, source in found for metric in source.metrics)
    confidence = found[0][1].confidence
    head = ["Metric", *(evaluation for evaluation, _, _ in found), "Of"]
    rows = [
        (metric, *(_value(_measure(source, metric)) for _, _, source in found), _of(found[-1][2], metric))
        for metric in metrics
    ]
    return Table(f"{name}, with {confidence:.0%} bootstrap intervals", head, rows)


def _measure(source: SourceScores, metric: str) -> MetricScore | None:
    return next((measure for measure in source.metrics if measure.name == metric), None)


def _value(measure: MetricScore | None) -> str:
    if measure is None:
        return "-"
    if measure.value is None:
        return measure.reason or "-"
    between = "" if measure.low is None else f" ({measure.low:.4f} to {measure.high:.4f})"
    return f"{measure.value:.4f}{between}"


def _of(source: SourceScores, metric: str) -> str:
    measure = _measure(source, metric)
    return f"{measure.count:,}" if measure else "-"


def classes(run: Run) -> list[Classes]:
    """Of the last evaluation, each data set whose answers are classes."""
    if not run.evaluations:
        return []
    last = run.evaluations[-1]
    return [
        _classes(f"{source.source}, {last.name}", source.classes) for source in last.scores.sources if source.classes
    ]


def _classes(title: str, found: list[ClassScore]) -> Classes:
    rows = [
        (c.name, f"{c.support:,}", f"{c.predicted:,}", _share(c.precision), _share(c.recall), _share(c.f1))
        for c in found[:MAX_CLASSES]
    ]
    head = ("Class", "Gold", "Predicted", "Precision", "Recall", "F1")
    few = len(found) <= MAX_MATRIX
    mistaken = [(gold, as_ or NO_CLASS, f"{turns:,}") for turns, gold, as_ in confusions(found)[:MAX_CONFUSIONS]]
    return Classes(
        title=title,
        table=Table(f"Classes of {title}", head, rows),
        left_out=max(0, len(found) - MAX_CLASSES),
        matrix=_matrix(found) if few else None,
        confusions=None if few else Table("The most frequent confusions", ("Gold", "Predicted", "Turns"), mistaken),
    )


def _matrix(found: list[ClassScore]) -> Matrix:
    names = [c.name for c in found]
    rows = []
    for c in found:
        counts = [(c.predicted_as.get(name, 0), name == c.name) for name in names] + [(c.no_class, False)]
        rows.append((c.name, [Cell(n, -(-n * _SHADES // c.support), right) for n, right in counts]))
    return Matrix([*names, NO_CLASS], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else number(value)

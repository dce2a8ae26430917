"""The charts of a report: training curves, and scores over training steps."""

from collections.abc import Iterator, Sequence

from convkit.report.curves import Chart, Point, make_chart
from convkit.report.run_directory import Evaluation, Run

_CURVES = {
    # field of a step: (title, whether it is noisy)
    "loss": ("Loss", True),
    "learning_rate": ("Learning rate", False),
    "grad_norm": ("Gradient norm, before clipping", True),
    "images_per_second": ("Images per second", True),
    "memory_gib": ("Peak memory, GiB", False),
}


def run_charts(run: Run) -> list[Chart]:
    """Return the charts of training steps and of evaluations during training."""
    found = []
    for name, (title, noisy) in _CURVES.items():
        values = [(float(step.step), getattr(step, name)) for step in run.steps]
        if points := [(x, y) for x, y in values if y is not None]:
            found.append(make_chart(title, {title: points}, smooth=noisy))
    return [*found, *_score_charts([e for e in run.evaluations if e.step is not None])]


def _score_charts(evaluations: Sequence[Evaluation]) -> Iterator[Chart]:
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
        yield make_chart(f"Scores on {source_name}", dict(curves), marked=True)

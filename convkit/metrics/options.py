"""Names of metrics, the default metrics of each dataset, and the options of `convkit score`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from convkit.errors import ConvkitError

CLASSES = "classes"
"""A table; every other metric is a single number."""
METRICS = ("accuracy", "majority", "anls", "consistency", "auroc", CLASSES)
DEFAULT_POSITIVE = ("yes", "true")
"""Answers that count as the positive class of AUROC."""
METRICS_BY_SOURCE = {
    "ucf101": ("accuracy", CLASSES),
    "easy-vqa": ("accuracy", CLASSES),
    "docvqa": ("anls", "accuracy"),
    "nlvr2": ("accuracy", "consistency"),
    "hateful-memes": ("accuracy", "auroc"),
    "hateful_memes": ("accuracy", "auroc"),  # the name in The Cauldron
}
"""Default metrics by the `source` of predictions."""
DEFAULT_METRICS = ("accuracy",)
"""Default metrics of all other sources."""


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `convkit score`."""

    metrics: tuple[str, ...] = ()
    """Names of `METRICS` for every dataset; by default those of `METRICS_BY_SOURCE`, or `DEFAULT_METRICS`."""
    positive: tuple[str, ...] = DEFAULT_POSITIVE
    """Answers that count as positive for AUROC, normalized as for accuracy."""
    resamples: Annotated[int, "Bootstrap resamples; 0 computes no confidence intervals.", Ge(0), Le(100_000)] = 1000
    seed: Annotated[int, "Random seed of the bootstrap.", Ge(0)] = 0

    def metrics_of(self, source: str) -> tuple[str, ...]:
        """Return the names of the metrics for a dataset."""
        return self.metrics or METRICS_BY_SOURCE.get(source, DEFAULT_METRICS)


def check_metric_names(options: ScoreOptions) -> None:
    """Check that all requested metrics exist.

    Raises:
        ConvkitError: a metric does not exist.
    """
    if unknown := [name for name in options.metrics if name not in METRICS]:
        raise ConvkitError(f"There is no metric {unknown[0]!r}. Choose from: {', '.join(METRICS)}.")

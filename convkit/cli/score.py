"""`convkit score PREDICTIONS`: score a predictions file, or compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convkit.cli.train_options import dataclass_options, parameter, with_signature
from convkit.metrics.options import DEFAULT_POSITIVE, METRICS, ScoreOptions

if TYPE_CHECKING:
    from convkit.metrics.results import Comparison, Scores

_FILE: dict[str, Any] = {"exists": True, "dir_okay": False}
_PREDICTIONS = typer.Argument(
    metavar="PREDICTIONS", help="A predictions file (*.jsonl); `convkit schema prediction` prints its format.", **_FILE
)
_METRICS = typer.Option(
    "--metrics",
    help=f"Metrics for every dataset, separated by commas: {', '.join(METRICS)}. Default: those of each dataset.",
)
_POSITIVE = typer.Option("--positive", help="Answers that count as positive for auroc, separated by commas.")
_COMPARE = typer.Option(
    "--compare",
    metavar="BASELINE",
    help="A predictions file of another model for the same turns; report wins and losses against it.",
    **_FILE,
)
_FORMAT = typer.Option("--format", help="Output format.")


def score_files(
    predictions: Path,
    compare: Path | None = None,
    format: Literal["text", "json"] = "text",
    metrics: str = "",
    positive: str = "",
    **options: Any,
) -> None:
    """Score a predictions file with the metrics of each dataset, or compare two files. Needs no model.

    With --compare, scores are paired by turn: wins, losses and the significance of the difference.

    Exit code 1 if a turn could not be scored, or a metric of --metrics could not be computed.
    """
    from convkit.metrics.compare import compare as compare_predictions
    from convkit.metrics.predictions import read_predictions
    from convkit.metrics.score import score as score_predictions
    from convkit.reporters import comparison, scores

    chosen = ScoreOptions(comma_separated(metrics), comma_separated(positive) or DEFAULT_POSITIVE, **options)
    result: Comparison | Scores
    if compare is None:
        result = score_predictions(read_predictions(predictions), chosen)
        text = scores.render(result)
    else:
        result = compare_predictions(read_predictions(compare), read_predictions(predictions), chosen)
        text = comparison.render(result)
    typer.echo(text if format == "text" else result.model_dump_json(indent=2) + "\n", nl=False)
    if not result.complete:
        raise typer.Exit(1)


def comma_separated(text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


score = with_signature(
    score_files,
    [
        parameter("predictions", Annotated[Path, _PREDICTIONS]),
        parameter("metrics", Annotated[str, _METRICS], ""),
        parameter("positive", Annotated[str, _POSITIVE], ",".join(DEFAULT_POSITIVE)),
        *dataclass_options(ScoreOptions, without=("metrics", "positive")),
        parameter("compare", Annotated[Path | None, _COMPARE], None),
        parameter("format", Annotated[Literal["text", "json"], _FORMAT], "text"),
    ],
)

"""`convkit score PREDICTIONS`: how good predictions are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from convkit.metrics.results import Comparison, Scores


def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="A predictions file (*.jsonl); `convkit schema prediction` prints its format.",
            exists=True,
            dir_okay=False,
        ),
    ],
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            help="Metrics for every data set, separated by commas: accuracy, majority, anls, consistency, auroc, "
            "classes. Default: those of each data set.",
        ),
    ] = "",
    positive: Annotated[
        str,
        typer.Option(
            "--positive", help="For auroc: answers that are positive, separated by commas. Default: yes,true."
        ),
    ] = "",
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, max=100_000, help="Of the bootstrap; 0: no confidence intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="BASELINE",
            help="Another predictions file of the same turns: what PREDICTIONS win and lose against it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option("--format", help="How the result is written.")] = "text",
) -> None:
    """Score a predictions file: every turn of every row, each data set by its own metrics. Needs no model.

    With --compare, each turn is paired with that of another file: wins, losses, and how sure the difference is.

    Exit code 1 if a turn could not be scored or a metric named by --metrics could not be computed.
    """
    from convkit.metrics.compare import compare as compared
    from convkit.metrics.predictions import read_predictions
    from convkit.metrics.score import DEFAULT_POSITIVE, ScoreOptions
    from convkit.metrics.score import score as run
    from convkit.reporters import comparison, scores

    options = ScoreOptions(names(metrics), names(positive) or DEFAULT_POSITIVE, resamples, seed)
    result: Comparison | Scores
    if compare is None:
        result = run(read_predictions(predictions), options)
        text = scores.render(result)
    else:
        result = compared(read_predictions(compare), read_predictions(predictions), options)
        text = comparison.render(result)
    typer.echo(text if format == "text" else result.model_dump_json(indent=2) + "\n", nl=False)
    if not result.complete:
        raise typer.Exit(1)


def names(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(name for part in text.split(",") if (name := part.strip()))

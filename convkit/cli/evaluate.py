"""`convkit evaluate`: answer every turn of a split with a model, and score the answers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from convkit.cli.score import comma_separated, score_files
from convkit.cli.train_options import (
    REQUIRED,
    dataclass_options,
    parameter,
    with_signature,
)
from convkit.train.evaluate.options import EvaluateOptions
from convkit.utils.silence import silence_libraries


def _compare(files: tuple[Path, Path] | None) -> None:
    """Compare two predictions files and exit, if --compare is given."""
    if files:
        baseline, predictions = files
        score_files(predictions, compare=baseline)
        raise typer.Exit


def _evaluate(metrics: str, compare: None, **values: Any) -> None:
    """Answer every turn of a split with a model, and score the answers. Resumes if interrupted.

    Runs on one GPU, or on several under torchrun. Exit code 1 if some turns could be scored and others could not.
    """
    from convkit.cli.report import write_final_report
    from convkit.errors import MissingExtra
    from convkit.metrics.options import ScoreOptions, check_metric_names
    from convkit.reporters.scores import render
    from convkit.utils.progress import progress_bar

    silence_libraries()
    scored_by = ScoreOptions(comma_separated(metrics))
    check_metric_names(scored_by)
    try:
        from convkit.train.distributed.world import world
        from convkit.train.evaluate import run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Evaluation") from None
    options = EvaluateOptions(**values)
    with world() as joined:
        predictions = run.evaluate(options, joined, progress_bar)
        if not joined.first:
            return
    found = run.scores(predictions, scored_by)
    typer.echo(render(found), nl=False)
    typer.echo(f"written: {predictions}")
    write_final_report(options.output_dir)
    labelled = any(source.turns > len(source.unlabelled) for source in found.sources)
    if labelled and not found.complete:
        raise typer.Exit(1)


_METRICS = typer.Option("--metrics", help="Metrics, as for `convkit score`. Default: those of each source.")
_COMPARE = typer.Option(
    "--compare",
    metavar="A B",
    help="Only compare two predictions files of the same turns: wins and losses of B against A. Same as "
    "`convkit score B --compare A`, which has more options.",
    exists=True,
    dir_okay=False,
    is_eager=True,
    callback=_compare,
)
evaluate = with_signature(
    _evaluate,
    [
        *sorted(dataclass_options(EvaluateOptions), key=lambda option: option.default is not REQUIRED),
        parameter("metrics", Annotated[str, _METRICS], ""),
        parameter("compare", Annotated[tuple[Path, Path] | None, _COMPARE], None),
    ],
)

"""`convkit report RUN_DIR`: an HTML report of a training run or an evaluation."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The --output_dir of convkit train or convkit evaluate.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output file. Default: RUN_DIR/run.html.", dir_okay=False)
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation",
            help="The --output_dir of an evaluation of this run's model, to include in the report; repeatable, the "
            "untrained model first.",
        ),
    ] = None,
) -> None:
    """Write run.html: configuration, data, curves, scores and predictions of a run in one offline file.

    The curves of a training run are also written to run.png beside it.

    `convkit train` and `convkit evaluate` write the report at the end. For an unfinished run, the report shows the
    results so far.
    """
    from convkit.report import write_report

    typer.echo(f"report: {write_report(run_dir, out, evaluation or ())}")


def write_final_report(run_dir: Path) -> None:
    """Write the report of a finished run; an error is printed and does not fail the run."""
    from convkit.errors import ConvkitError
    from convkit.report import write_report

    try:
        typer.echo(f"report: {write_report(run_dir)}")
    except (ConvkitError, OSError) as error:
        typer.echo(f"convkit: could not write the report: {error}", err=True)

"""`convkit report RUN_DIR`: a page of a run or of an evaluation."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The --output_dir of convkit train or convkit evaluate.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes. Default: RUN_DIR/run.html.", dir_okay=False)
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            "--evaluation",
            help="The --output_dir of an evaluation of this run's model, to show as well; once for each, the one of "
            "the untrained model first.",
        ),
    ] = None,
) -> None:
    """Write run.html: configuration, data, curves, scores and predictions of a run, in one file without network.

    The curves of a training run go into run.png beside it as well.

    Runs and evaluations write it themselves when they end. Of one that was cut off the page shows what there is.
    """
    from convkit.report import write_report

    typer.echo(f"report: {write_report(run_dir, out, evaluation or ())}")


def at_the_end(run_dir: Path) -> None:
    """Write the page of a run that has ended; what stands in its way does not make the run a failure."""
    from convkit.errors import ConvkitError
    from convkit.report import write_report

    try:
        typer.echo(f"report: {write_report(run_dir)}")
    except (ConvkitError, OSError) as error:
        typer.echo(f"convkit: no report was written: {error}", err=True)

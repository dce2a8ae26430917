"""`convkit split DATA`: new splits of a dataset, without separating rows that belong together."""

from pathlib import Path
from typing import Annotated

import typer

from convkit.cli.convert import OutDir, Workers


def split(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A dataset directory.", exists=True, file_okay=False),
    ],
    out_dir: OutDir,
    ratios: Annotated[
        str,
        typer.Option(
            "--ratios", help="The new splits and their shares: train=0.8,val=0.1,test=0.1 or train=80,val=20."
        ),
    ],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the assignment of rows to splits.")] = 0,
    stratify: Annotated[
        bool, typer.Option("--stratify/--no_stratify", help="Keep the share of each answer equal in all splits.")
    ] = True,
    splits: Annotated[
        str, typer.Option("--splits", help="Splits to pool, comma-separated. Default: all that have answers.")
    ] = "",
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link images instead of copying them, where possible.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Divide a dataset into new splits; rows with equal groups or images stay together.

    Row ids and image paths do not change, so a path may contain the name of the row's former split.
    """
    from pydantic import ValidationError

    from convkit.cli.convert import run_conversion
    from convkit.errors import ConvkitError
    from convkit.split.converter import Split, SplitOptions

    try:
        options = SplitOptions.model_validate(
            {"ratios": ratios, "seed": seed, "stratify": stratify, "splits": splits, "link": link}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConvkitError(
            f"--{first['loc'][0]} {ratios}: {first['msg'].removeprefix('Value error, ')}. See: convkit split --help"
        ) from error
    run_conversion(Split, options, out_dir, str(data), workers, "fail", None)

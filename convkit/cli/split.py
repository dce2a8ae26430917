"""`convkit split DATA`: other splits of a data set, without separating what belongs together."""

from pathlib import Path
from typing import Annotated

import typer


def split(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A dataset directory.", exists=True, file_okay=False),
    ],
    out_dir: Annotated[
        Path, typer.Option("--out_dir", help="The dataset directory to write; new, or interrupted before.")
    ],
    ratios: Annotated[
        str, typer.Option("--ratios", help="The new splits and their shares: train=0.8,val=0.1,test=0.1.")
    ],
    seed: Annotated[int, typer.Option("--seed", help="Decides which rows go where.")] = 0,
    stratify: Annotated[
        bool, typer.Option("--stratify/--no_stratify", help="Give every split its share of each answer.")
    ] = True,
    splits: Annotated[
        str, typer.Option("--splits", help="Splits to pool, separated by commas. Default: all that have answers.")
    ] = "",
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link images instead of copying them, where possible.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes. Default: one a processor; 0: none.")
    ] = None,
) -> None:
    """Split a data set anew: rows of one group, and rows that show equal images, stay together.

    Ids and image paths stay as they are, so a path may name the split that its row once had.
    """
    from pydantic import ValidationError

    from convkit.cli.convert import _run
    from convkit.errors import ConvkitError
    from convkit.split import Split, SplitOptions

    try:
        options = SplitOptions.model_validate(
            {"ratios": ratios, "seed": seed, "stratify": stratify, "splits": splits, "link": link}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConvkitError(
            f"--{first['loc'][0]} {ratios}: {first['msg'].removeprefix('Value error, ')}. See: convkit split --help"
        ) from error
    _run(Split, options, out_dir, str(data), workers, "fail", None)

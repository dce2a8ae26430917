"""`convkit validate PATH...`: prove data sets sound."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from convkit.reporters import REPORTERS, get_reporter


def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Dataset directories or row files (*.jsonl, .gz, .zst; - is stdin).",
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", metavar="|".join(REPORTERS), help="How the report is written.")
    ] = "text",
    media: Annotated[
        Literal["decode", "header", "none"],
        typer.Option("--media", help="How far image files are read. Only decode finds truncated ones."),
    ] = "decode",
    model: Annotated[
        str, typer.Option("--model", metavar="PROFILE", help="The model that is to be trained; adds rules CK4xx.")
    ] = "",
    max_length: Annotated[
        int | None, typer.Option("--max_length", min=1, help="With --model: the most tokens that a row may have.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="With --model: its tokenizer.json, to count text exactly.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Worker processes. Default: one a processor; 0: none."),
    ] = None,
) -> None:
    """Check every row and image of data sets; exit code 1 if there are errors.

    A dataset directory that passes gets a receipt, which training asks for.
    """
    from convkit.cli.model import target_of
    from convkit.progress import progress_bar
    from convkit.validate import validate as run

    render = get_reporter(format)
    target = target_of(model, tokenizer, max_length)
    result = run(paths, media=media, target=target, workers=workers, bars=progress_bar)
    sys.stdout.write(render(result.report))
    for path in result.receipts:
        typer.echo(f"receipt written: {path}", err=True)
    for note in result.notes:
        typer.echo(note, err=True)
    if result.report.summary.errors:
        raise typer.Exit(1)

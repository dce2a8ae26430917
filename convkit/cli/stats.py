"""`convkit stats PATH`: what a data set holds, and what a model makes of it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from convkit.cli.model import MODEL_HELP


def stats(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A dataset directory or a row file (*.jsonl).", exists=True)
    ],
    model: Annotated[str, typer.Option("--model", metavar="PROFILE|DIRECTORY", help=MODEL_HELP)] = "",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="With --model: its tokenizer.json, to count text exactly.")
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option("--format", help="How the result is written.")] = "text",
    top: Annotated[int, typer.Option("--top", min=0, max=1000, help="Answers that are listed.")] = 10,
) -> None:
    """Describe a data set: turns, images, sizes, answers, and with --model tokens, without its weights.

    Reads the headers of images only. Exit code 1 if a row or an image could not be read.
    """
    from convkit.cli.model import resolve_model
    from convkit.reporters.stats import render
    from convkit.stats import compute_stats
    from convkit.utils.progress import progress_bar

    target = resolve_model(model, tokenizer)
    with progress_bar("counting", "B") as update:
        result = compute_stats(path, target, model=target.spec if target else "", top=top, progress=update)
    typer.echo(render(result) if format == "text" else result.model_dump_json(indent=2) + "\n", nl=False)
    if not result.complete:
        raise typer.Exit(1)

"""`convkit stats PATH`: statistics of a dataset, with token counts for a model."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def stats(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A dataset directory or a row file (*.jsonl).", exists=True)
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="PROFILE|DIRECTORY",
            help="Count tokens for this token profile, such as qwen2.5-vl (an unknown name lists all), or checkpoint "
            "directory.",
        ),
    ] = "",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="tokenizer.json of the model, for exact token counts of text.")
    ] = None,
    format: Annotated[Literal["text", "json"], typer.Option("--format", help="Output format.")] = "text",
    top: Annotated[int, typer.Option("--top", min=0, max=1000, help="Number of most frequent answers to list.")] = 10,
) -> None:
    """Show statistics of a dataset: turns, images, image sizes, answers, and token counts with --model.

    Reads only image headers, and no model weights. Exit code 1 if a row or an image could not be read.
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

"""`convkit inspect DATA`: one row as a model will see it."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A dataset directory.", exists=True, file_okay=False)],
    model: Annotated[Path, typer.Option("--model", help="A checkpoint's directory; its weights are not loaded.")],
    row: Annotated[str, typer.Option("--row", metavar="ID", help="The row's id.")],
    split: Annotated[str, typer.Option("--split", help="Where the row is. Default: all splits are searched.")] = "",
    num_crops: Annotated[
        int | None, typer.Option("--num_crops", min=1, help="At most so many tiles an image, for Phi-3-vision.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a page (*.html) with the images as the model sees them.")
    ] = None,
) -> None:
    """Show what a model will see of a row: tokens, which of them are trained on, positions, tiles."""
    from convkit.cli.train_options import silence_libraries
    from convkit.errors import ConvkitError, MissingExtra

    if out is not None and out.suffix != ".html":
        raise ConvkitError(f"--out writes a page, which {str(out)!r} is no name for. Give one that ends in .html.")
    silence_libraries()
    try:
        from convkit.train import models
        from convkit.train.inspect import views
        from convkit.train.inspect.tokens import inspect_row
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Looking at a row as a model does") from None
    from rich.console import Console

    from convkit.utils.files import write_atomic

    view = inspect_row(data, row, models.model_family(model, num_crops), split or None)
    if out is None:
        Console(highlight=False).print(views.text(view), soft_wrap=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, views.page(view).encode(), out.parent)
    typer.echo("\n".join([*views.summary(view), f"written to {out}"]))

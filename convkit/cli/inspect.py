"""`convkit inspect DATA`: show the tokens, labels and image tiles of one row."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A dataset directory.", exists=True, file_okay=False)],
    model: Annotated[Path, typer.Option("--model", help="Checkpoint directory; weights are not loaded.")],
    row: Annotated[
        str | None, typer.Option("--row", metavar="ID", help="Id of the row. Default: the row of --index.")
    ] = None,
    index: Annotated[
        int | None, typer.Option("--index", min=0, help="Position of the row, counted from 0. Default: the first row.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split that has the row. Default: all splits, in order.")] = "",
    num_crops: Annotated[
        int | None, typer.Option("--num_crops", min=1, help="Maximum tiles per image, for Phi-3-vision only.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write an HTML page (*.html) that also shows the image tiles.")
    ] = None,
) -> None:
    """Show one row as model input: tokens, label mask, positions and image tiles. Default: the first row."""
    from convkit.errors import ConvkitError, MissingExtra
    from convkit.utils.silence import silence_libraries

    if out is not None and out.suffix != ".html":
        raise ConvkitError(f"--out writes an HTML page, but {str(out)!r} does not end in .html.")
    if row is not None and index is not None:
        raise ConvkitError("--row and --index both choose the row. Leave one out.")
    silence_libraries()
    try:
        from convkit.train import models
        from convkit.train.inspect import views
        from convkit.train.inspect.tokens import inspect_row
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Inspecting model input") from None
    from rich.console import Console

    from convkit.utils.files import write_atomic

    chosen = (index or 0) if row is None else row
    view = inspect_row(data, chosen, models.model_family(model, num_crops), split or None)
    if out is None:
        Console(highlight=False).print(views.text(view), soft_wrap=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, views.page(view).encode(), out.parent)
    typer.echo("\n".join([*views.summary(view), f"wrote {out}"]))

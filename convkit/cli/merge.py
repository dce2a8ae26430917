"""`convkit merge`: an adapter into the model that it was trained on."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def merge(
    model: Annotated[Path, typer.Option(help="The checkpoint that the adapter was trained on.")],
    adapter: Annotated[Path, typer.Option(help="The adapter: final/adapter of a run, or a checkpoint's.")],
    out: Annotated[Path, typer.Option(help="Where the merged model is written; must be empty or not there.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of the weights that are written. Default: the checkpoint's own."),
    ] = None,
    num_crops: Annotated[
        int | None, typer.Option(min=1, help="At most so many tiles an image, as trained with; kept with the model.")
    ] = None,
) -> None:
    """Merge an adapter into its model, in the layout in which such models are published."""
    from convkit.cli.train_options import silence_libraries
    from convkit.errors import MissingExtra

    silence_libraries()
    try:
        from convkit.train import models
        from convkit.train.models.merge import merge_adapter
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Merging") from None
    written = merge_adapter(models.model_family(model, num_crops), model, adapter, out, dtype)
    typer.echo(f"{out}: {model} with {adapter}, in {written}")

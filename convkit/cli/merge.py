"""`convkit merge`: merge a LoRA adapter into its base model."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def merge(
    model: Annotated[
        Path, typer.Option(help="Checkpoint directory of the base model that the adapter was trained on.")
    ],
    adapter: Annotated[Path, typer.Option(help="LoRA adapter directory, such as final/adapter of a run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output directory; must be empty or not exist.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Dtype of the merged weights. Default: that of the base model."),
    ] = None,
    num_crops: Annotated[
        int | None,
        typer.Option(
            "--num_crops",
            min=1,
            help="Maximum tiles per image used in training, for Phi-3-vision; saved with the model.",
        ),
    ] = None,
) -> None:
    """Merge a LoRA adapter into its base model, and write a standalone checkpoint."""
    from convkit.errors import MissingExtra
    from convkit.utils.silence import silence_libraries

    silence_libraries()
    try:
        from convkit.train import models
        from convkit.train.models.merge import merge_adapter
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Merging an adapter") from None
    written = merge_adapter(models.model_family(model, num_crops), model, adapter, out, dtype)
    typer.echo(f"wrote {out}: {model} merged with {adapter}, in {written}")

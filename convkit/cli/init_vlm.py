"""`convkit init-vlm`: a small vision-language model to start training from, without any download."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def init_vlm(
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Where the checkpoint is written; must be empty or not there.")
    ],
    language_model: Annotated[
        Path | None,
        typer.Option(
            "--language_model", help="A trained model of Llama's kind: a Hugging Face folder, or a .gguf file."
        ),
    ] = None,
    texts_of: Annotated[
        Path | None,
        typer.Option("--texts_of", help="Instead: a dataset directory, for a tiny model that knows nothing yet."),
    ] = None,
    vision: Annotated[
        Literal["tiny", "small", "base"],
        typer.Option("--vision", help="The vision tower: pictures of 64, 224 or 512 pixels, 4, 49 or 64 tokens each."),
    ] = "small",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the new weights.")] = 0,
) -> None:
    """Join a trained language model with a fresh vision tower, as a SmolVLM; or make a tiny one for a data set's words.

    Nothing is downloaded, and no code of the language model's folder is run.
    """
    from convkit.cli.train_options import silence_libraries
    from convkit.errors import ConvkitError, MissingExtra

    if (language_model is None) == (texts_of is None):
        raise ConvkitError("Give --language_model to join a trained one, or --texts_of for a tiny one; one of them.")
    silence_libraries()
    try:
        from convkit.train.models import init_vlm as run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Making a model") from None
    made = (
        run.from_language_model(language_model, output_dir, vision, seed)
        if language_model
        else run.from_scratch(texts_of or Path(), output_dir, vision, seed)
    )
    typer.echo(f"{output_dir}: {made}")

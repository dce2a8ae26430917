"""`convkit init-vlm`: create a small vision-language model to start training from."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def init_vlm(
    output_dir: Annotated[
        Path, typer.Option("--output_dir", "-o", help="Output directory; must be empty or not exist.")
    ],
    language_model: Annotated[
        Path | None,
        typer.Option(
            "--language_model", help="Trained Llama-architecture model: a Hugging Face directory or a .gguf file."
        ),
    ] = None,
    tokenizer_corpus: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer_corpus",
            help="Dataset directory to train a tokenizer on, for a tiny language model with random weights.",
        ),
    ] = None,
    vision: Annotated[
        Literal["tiny", "small", "base"],
        typer.Option("--vision", help="Vision tower: images of 64, 224 or 512 pixels, with 4, 49 or 64 tokens each."),
    ] = "small",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the new weights.")] = 0,
) -> None:
    """Create a SmolVLM from a language model and a new vision tower, or from scratch.

    Pass --language_model for a trained language model, or --tokenizer_corpus for a tiny one with random weights.
    convkit downloads nothing, and runs no code from the language model's directory.
    """
    from convkit.errors import ConvkitError, MissingExtra
    from convkit.utils.silence import silence_libraries

    if (language_model is None) == (tokenizer_corpus is None):
        raise ConvkitError("Pass either --language_model or --tokenizer_corpus.")
    silence_libraries()
    try:
        from convkit.train.models import init_vlm as run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Creating a model") from None
    description = (
        run.from_language_model(language_model, output_dir, vision, seed)
        if language_model
        else run.from_scratch(tokenizer_corpus or Path(), output_dir, vision, seed)
    )
    typer.echo(f"wrote {output_dir}: {description}")

"""`convkit schema [NAME]`: print the JSON Schemas of the files that convkit reads and writes."""

import sys
from typing import Annotated

import typer


def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a schema, such as row. Default: list all schemas.")
    ] = None,
) -> None:
    """Print the JSON Schema of rows, manifests, reports or other files, or list all schemas."""
    from convkit.errors import ConvkitError
    from convkit.schemas import MODELS, generate

    models = {file.removesuffix(".json"): model for file, model in MODELS.items()}
    if name is None:
        width = max(map(len, models))
        for known, model in models.items():
            typer.echo(f"{known:<{width}}  {model.model_config.get('title')}")
    elif name in models:
        sys.stdout.write(generate(models[name]))
    else:
        raise ConvkitError(f"There is no schema {name!r}. Choose one of: {', '.join(models)}.")

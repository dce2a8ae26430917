"""The command line: one small module per command, with heavy imports inside the commands."""

import errno
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from convkit import __version__
from convkit.cli.commands import Command, Group, underscores
from convkit.errors import ConvkitError

SUMMARIES = {
    "Data": {
        "convert": "Convert images, videos or a published dataset to chat rows.",
        "split": "Divide a dataset into new splits without data leakage.",
        "validate": "Check every row and image of a dataset, and write a receipt.",
        "rule": "Explain one rule of convkit validate, or list all rules.",
        "schema": "Print the JSON Schema of rows, manifests or reports.",
        "stats": "Show the turns, image sizes and token counts of a dataset.",
    },
    "Model": {
        "train": "Fine-tune a vision-language model on a validated dataset.",
        "evaluate": "Generate answers for every turn of a split and score them.",
        "score": "Score a predictions file, or compare two of them.",
        "report": "Write an HTML report of a training run or an evaluation.",
        "inspect": "Show the tokens, labels and images a model sees of a row.",
        "merge": "Merge a LoRA adapter into the weights of its model.",
        "init-vlm": "Create a VLM from a language model and a new vision tower.",
    },
    "Tools": {
        "bench": "Measure the throughput of training and data loading.",
    },
}
"""One-line summaries of all commands by section, in the order in which people use them."""


class Commands(Group):
    """The commands, listed by section and with whole summaries; a command is imported only when it is needed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        not_loaded: dict[str, Any] = dict.fromkeys(self.list_commands(None))
        self.commands = not_loaded

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the command names in the order of `SUMMARIES`."""
        return [name for summaries in SUMMARIES.values() for name in summaries]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, after importing its module; its name may be spelled with underscores."""
        name = cmd_name.replace("_", "-")
        if name in self.commands and self.commands[name] is None:
            self.commands[name] = _load(name)
        return super().get_command(ctx, name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section of the help per stage of the work."""
        for section, summaries in SUMMARIES.items():
            with formatter.section(section):
                formatter.write_dl([(f"{name:8}", summary) for name, summary in summaries.items()])


SETTINGS = {"help_option_names": ["-h", "--help"], "token_normalize_func": underscores}

app = typer.Typer(
    name="convkit",
    cls=Commands,
    help="Convert, check and fine-tune on image and video chat datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich alone would cost half of the start-up time
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _load(name: str) -> Any:
    """Return a command from the module of its name: a function of the same name, or an `app` with subcommands."""
    identifier, summary = underscores(name), next(found[name] for found in SUMMARIES.values() if name in found)
    module = import_module(f"convkit.cli.{identifier}")
    if hasattr(module, "app"):
        group = typer.main.get_group(module.app)
        group.name, group.short_help = name, summary
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(name, cls=Command, short_help=summary)(getattr(module, identifier))
    return typer.main.get_command(single)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"convkit {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error that a user can cause is one paragraph and exit code 2, never a traceback."""
    try:
        app(prog_name="convkit")
    except ConvkitError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail("the disk is full. The work so far is kept: free some space and run the same command again.")
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}. {_remedy(error)}.")


def _remedy(error: OSError) -> str:
    match error:
        case FileExistsError():
            return "Choose another name"
        case PermissionError():
            return "Check the permissions of this path and of its folder, or choose another path"
        case _:
            return "Check that it exists and is accessible"


def _fail(message: str) -> None:
    print(f"convkit: error: {message}", file=sys.stderr)
    sys.exit(2)

"""The command line: one thin file a command. Nothing heavy is imported before a command runs."""

import errno
import sys
from typing import Annotated

import typer

from convkit import __version__
from convkit.cli.bench import app as bench_app
from convkit.cli.convert import app as convert_app
from convkit.cli.evaluate import evaluate
from convkit.cli.init_vlm import init_vlm
from convkit.cli.inspect import inspect
from convkit.cli.merge import merge
from convkit.cli.report import report
from convkit.cli.rule import rule
from convkit.cli.schema import schema
from convkit.cli.score import score
from convkit.cli.sections import SectionedCommand
from convkit.cli.split import split
from convkit.cli.stats import stats
from convkit.cli.train import command as train_command
from convkit.cli.validate import validate
from convkit.errors import ConvkitError


def underscores(option: str) -> str:
    """Options are spelled with underscores, as in the recipe, and taken with dashes as well."""
    return option.replace("-", "_")


SETTINGS = {"help_option_names": ["-h", "--help"], "token_normalize_func": underscores}

app = typer.Typer(
    name="convkit",
    help="Compile, prove and report vision-language conversation data.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich alone would cost half of the start-up time
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
app.add_typer(bench_app, name="bench")
app.add_typer(convert_app, name="convert")
app.command("evaluate")(evaluate)
app.command("init-vlm")(init_vlm)
app.command()(inspect)
app.command()(merge)
app.command()(report)
app.command()(score)
app.command()(split)
app.command()(stats)
app.command("train", cls=SectionedCommand)(train_command())
app.command()(validate)
app.command()(rule)
app.command()(schema)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"convkit {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what a user can cause ends in one paragraph and exit code 2, never in a traceback."""
    try:
        app()
    except ConvkitError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail("the disk is full. What is done so far is kept: make room and run the same command again.")
        remedy = (
            "Choose another name" if isinstance(error, FileExistsError) else "Check that it exists and is accessible"
        )
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}. {remedy}.")


def _fail(message: str) -> None:
    print(f"convkit: error: {message}", file=sys.stderr)
    sys.exit(2)

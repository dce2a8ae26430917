"""`convkit convert NAME`: one command per converter, generated from its options."""

import inspect
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer

from convkit.cli.commands import Command, Group

if TYPE_CHECKING:
    from convkit.converters.base import Converter, Options
    from convkit.schema import Manifest

Parameters = dict[str, tuple[Any, Any]]
"""The annotation and default of each parameter by name."""

OutDir = Annotated[
    Path, typer.Option("--out_dir", "-o", help="The dataset directory to write; new, empty, or of an interrupted run.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Worker processes; 0 runs in-process. Default: CPU count.")
]
COMMON: Parameters = {
    "out_dir": (OutDir, inspect.Parameter.empty),
    "workers": (Workers, None),
    "on_error": (
        Annotated[
            Literal["quarantine", "fail"],
            typer.Option("--on_error", help="How to treat an item that cannot become a row."),
        ],
        "quarantine",
    ),
}


class Converters(Group):
    """A command per converter; a converter is imported only when its command runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all converters."""
        from convkit.converters import available_converters

        return list(available_converters())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of one converter, None if no converter has this name."""
        from convkit.converters import available_converters, describe_converter, load_converter

        name = next((n for n in available_converters() if n.replace("_", "-") == cmd_name.replace("_", "-")), None)
        if name is None:
            return None
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(name, cls=Command, help=describe_converter(name))(_command(load_converter(name)))
        return typer.main.get_command(single)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Refuse an unknown converter with the names of the known ones."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from convkit.converters import load_converter

            load_converter(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of converters without importing them."""
        from convkit.converters import available_converters

        with formatter.section("Converters"):
            formatter.write_dl([(name, entry.summary) for name, entry in available_converters().items()])


app = typer.Typer(
    cls=Converters,
    help="Convert a source into a dataset directory. After an interrupt, run the same command again to resume.",
    subcommand_metavar="CONVERTER [OPTIONS]",
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode=None,
)


def _list(requested: bool) -> None:
    if requested:
        from convkit.converters import available_converters

        entries = available_converters()
        width = max(map(len, entries))
        for name, entry in entries.items():
            typer.echo(f"{name:{width}}  {entry.summary}")
        raise typer.Exit


@app.callback()
def _convert(
    show: Annotated[bool, typer.Option("--list", help="List the converters.", callback=_list, is_eager=True)] = False,
) -> None:
    pass


def _command(converter: "type[Converter[Any]]") -> Any:
    """Return a function with a parameter per common option and per option of the converter."""

    def command(**values: Any) -> None:
        source = _resolve_source(converter, values.pop("source_argument"), values.pop("source"))
        common = {name: values.pop(name) for name in ("max_errors", *COMMON)}
        run_conversion(converter, _options(converter, values), source=source, **common)

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in {
            **_source_parameters(converter),
            **COMMON,
            **_max_errors(converter),
            **_parameters(converter.Options),
        }.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _source_parameters(converter: "type[Converter[Any]]") -> Parameters:
    """Return the positional source, and the option --source with the same meaning."""
    default = converter.default_source
    text = f"A local folder or archive (tar or zip). {f'Default: {default}.' if default else 'Required.'}"
    argument = typer.Argument(metavar="SOURCE", help=text, show_default=False)
    option = typer.Option("--source", metavar="SOURCE", help="The source, if it is not an argument.")
    return {
        "source_argument": (Annotated[str | None, argument], None),
        "source": (Annotated[str | None, option], None),
    }


def _resolve_source(converter: "type[Converter[Any]]", argument: str | None, option: str | None) -> str | None:
    """Return the source that was given as an argument or with --source; None for the default source.

    Raises:
        ConvkitError: both differ, or neither is given and the converter has no default source.
    """
    from convkit.errors import ConvkitError

    if argument is not None and option is not None and argument != option:
        raise ConvkitError(f"two sources are given: {argument} and --source {option}. Leave one out.")
    source = option if argument is None else argument
    if source is None and converter.default_source is None:
        raise ConvkitError(
            f"the source is missing. Pass a folder or an archive: convkit convert {converter.name} SOURCE -o DIR"
        )
    return source


def _max_errors(converter: "type[Converter[Any]]") -> Parameters:
    from convkit.convert.error_budget import DEFAULT_COUNT

    expected = converter.expected_missing
    default = f"{DEFAULT_COUNT}" + (f", or {expected:.0%} if that is more" if expected else "")
    help_text = (
        "Stop if more than this is quarantined: a number, or a share such as 5%. "
        f"If given, quarantined items do not cause exit code 1. Default: {default}."
    )
    return {"max_errors": (Annotated[str | None, typer.Option("--max_errors", help=help_text)], None)}


def _parameters(options: "type[Options]") -> Parameters:
    found: Parameters = {}
    for name, field in options.model_fields.items():
        # A tuple is one comma-separated argument, which the model splits.
        is_tuple = get_origin(field.annotation) is tuple
        annotation, default = (str, "") if is_tuple else (field.annotation, field.default)
        option = typer.Option(
            f"--{name}", help=field.description, show_default=default is not False and default not in (None, "")
        )
        found[name] = (Annotated[annotation, option], default)
    return found


def _options(converter: "type[Converter[Any]]", values: dict[str, Any]) -> "Options":
    from pydantic import ValidationError

    from convkit.errors import ConvkitError

    try:
        return converter.Options(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"--{e['loc'][0] if e['loc'] else ''} {e['input']}: {_problem(e['msg'])}"
            for e in error.errors(include_url=False)
        )
        raise ConvkitError(f"{problems}. See: convkit convert {converter.name} --help") from error


def _problem(message: str) -> str:
    """Return a validation message without pydantic's prefix, and with `{classes}` in place of its pattern."""
    placeholder = re.fullmatch(r"String should match pattern '\\\{(\w+)\\\}'", message)
    return f"the text must contain {{{placeholder[1]}}}" if placeholder else message.removeprefix("Value error, ")


def run_conversion(
    converter: "type[Converter[Any]]",
    options: "Options",
    out_dir: Path,
    source: str | None,
    workers: int | None,
    on_error: Literal["quarantine", "fail"],
    max_errors: str | None,
) -> None:
    """Convert, print the summary, and exit with 1 if anything was quarantined without `--max_errors`."""
    from convkit import layout
    from convkit.convert.error_budget import Budget, Policy
    from convkit.convert.run import convert
    from convkit.utils.progress import progress_bar

    if (out_dir / layout.MANIFEST).exists():
        typer.echo(f"{out_dir} is already complete; checking that it holds this dataset.", err=True)
    budget = None if max_errors is None else Budget.parse(max_errors)
    try:
        _handle_interrupts()
        manifest = convert(
            converter,
            source,
            options,
            out_dir,
            workers=workers,
            policy=Policy(on_error, budget),
            progress_bars=progress_bar,
        )
    except KeyboardInterrupt:
        typer.echo("convkit: interrupted. Run the same command again to resume.", err=True)
        raise typer.Exit(130) from None
    typer.echo(_summary(manifest, out_dir))
    if (quarantine := out_dir / layout.QUARANTINE).exists():
        typer.echo(_quarantine_summary(quarantine, manifest, accepted=max_errors is not None))
        if max_errors is None:
            raise typer.Exit(1)


def _handle_interrupts() -> None:
    """Treat SIGTERM like Ctrl-C; a background job that ignores SIGINT still ignores it."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    """Stop at the first interrupt, and ignore later ones while the conversion ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _summary(manifest: "Manifest", out_dir: Path) -> str:
    from convkit.reporters.table import table

    done = manifest.accounting
    parts = [f"{done.written:,} written", f"{done.quarantined:,} quarantined"]
    parts += [f"{count:,} left out ({reason})" for reason, count in done.excluded.items()]
    lines = [f"{manifest.name}: {done.read:,} {done.unit}s read = {' + '.join(parts)}", ""]
    rows = [[name, f"{s.rows:,}", f"{s.turns:,}", f"{s.images:,}"] for name, s in manifest.splits.items()]
    lines.append(table(["split", "rows", "turns", "images"], rows))
    lines += ["", f"{done.media_files:,} media files, {done.media_bytes / 1e6:,.1f} MB in {out_dir}"]
    return "\n".join(lines)


def _quarantine_summary(path: Path, manifest: "Manifest", *, accepted: bool) -> str:
    """Describe what was quarantined, and why the exit code is 1 unless that was accepted."""
    from convkit.convert.error_budget import RejectSummary
    from convkit.utils.text import printable

    rejects = RejectSummary.read(path)
    lines = [f"quarantined: {printable(rejects.describe())}", f"all quarantined entries, with reasons: {path}"]
    if not accepted:
        entries = "1 entry" if rejects.entries == 1 else f"{rejects.entries:,} entries"
        lines.append(
            f"exit code 1, because {entries} of the source could not be converted. "
            f"To accept this, pass --max_errors {manifest.accounting.quarantined}."
        )
    return "\n".join(lines)

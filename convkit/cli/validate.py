"""`convkit validate PATH...`: prove data sets sound."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convkit.cli.model import MODEL_HELP
from convkit.reporters import REPORTERS, get_reporter

if TYPE_CHECKING:
    from convkit.findings import Report
    from convkit.validate.run import Result
    from convkit.validate.settings import Selection

Codes = list[str] | None
_RULES = "RULE[,...]"


def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Dataset directories or row files (*.jsonl, .gz, .zst; - is stdin).",
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", metavar="|".join(REPORTERS), help="How the report is written.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the report to a file, not to the terminal.")
    ] = None,
    media: Annotated[
        Literal["decode", "header", "none"],
        typer.Option("--media", help="How far image files are read. Only decode finds truncated ones."),
    ] = "decode",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="PROFILE|DIRECTORY",
            help=f"{MODEL_HELP} Adds rules CK4xx.",
        ),
    ] = "",
    max_length: Annotated[
        int | None, typer.Option("--max_length", min=1, help="With --model: the most tokens that a row may have.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="With --model: its tokenizer.json, to count text exactly.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Worker processes. Default: one a processor; 0: none."),
    ] = None,
    select: Annotated[
        Codes, typer.Option(metavar=_RULES, help="Report these rules alone: codes, their beginnings (CK2), slugs.")
    ] = None,
    ignore: Annotated[Codes, typer.Option(metavar=_RULES, help="Do not report these rules.")] = None,
    error: Annotated[Codes, typer.Option(metavar=_RULES, help="Take findings of these rules for errors.")] = None,
    warn: Annotated[Codes, typer.Option(metavar=_RULES, help="Take findings of these rules for warnings.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings. Default: convkit.toml or [tool.convkit] of pyproject.toml, from here upwards.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Accept the findings of this file.")
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write_baseline", help="Make the baseline anew from today's findings.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without asking, then validate.")] = False,
) -> None:
    """Check every row and image of data sets; exit code 1 if there are errors.

    A dataset directory that passes gets a receipt, which training asks for.
    """
    from convkit import layout
    from convkit.cli.model import resolve_model
    from convkit.errors import ConvkitError
    from convkit.utils.progress import progress_bar
    from convkit.validate.run import validate as run
    from convkit.validate.settings import load

    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConvkitError(f"--output {output} is a folder, or in none that exists. Give the name of a file.")
    terminal = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    render = get_reporter(format, terminal=terminal)
    target = resolve_model(model, tokenizer, max_length)
    settings = load(config)
    selection = settings.selection(_names(select), _names(ignore), _names(error), _names(warn))
    baseline = baseline or settings.baseline
    if write_baseline and baseline is None:
        raise ConvkitError("--write_baseline needs the name of the file. Add --baseline FILE.")
    if fix and Path(layout.STDIN) in paths:
        raise ConvkitError("--fix mends files, and standard input is none. Write the rows into a file and name it.")

    def again() -> "Result":
        return run(paths, media=media, target=target, workers=workers, bars=progress_bar, selection=selection)

    result = again()
    if fix:
        result = _fixed(result, again)
    for line in (*(f"receipt written: {path}" for path in result.receipts), *result.notes):
        _say(line)
    report = result.report
    if baseline:
        report = _accept(report, baseline, write_baseline, paths, selection, complete=media == "decode")
    _write(render(report), output)
    if report.summary.errors:
        raise typer.Exit(1)


def _say(text: str) -> None:
    from convkit.reporters.formatting import printable

    typer.echo(printable(text), err=True)


def _names(options: Codes) -> list[str]:
    return [name.strip() for option in options or () for name in option.split(",")]


def _fixed(result: "Result", again: Callable[[], "Result"]) -> "Result":
    """Mend and say what, until nothing is left to mend: not all findings may have been listed."""
    from convkit.reporters.formatting import pluralize
    from convkit.validate.fix import fix

    while True:
        changes, refused = fix(result.report.findings)
        if not changes:
            for line in refused:
                _say(line)
            return result
        for change in changes:
            _say(str(change))
        _say(f"{pluralize(len(changes), 'line')} mended")
        result = again()


def _accept(
    report: "Report", path: Path, anew: bool, paths: list[Path], selection: "Selection", *, complete: bool
) -> "Report":
    """Take out of a report what the baseline accepts; say what it accepts in vain, where all was looked at."""
    from convkit.validate import baseline

    if anew:
        baseline.write(path, report)
        _say(f"baseline written: {path}: {len(report.findings):,} findings accepted")
    compared = baseline.compare(report, baseline.read(path), path.parent)
    if compared.accepted and not anew:
        errors = report.summary.errors - compared.report.summary.errors
        receipt = "; no receipt is written while there are errors among them" if errors else ""
        _say(f"{compared.accepted:,} findings are accepted by {path}{receipt}")
    if complete:
        stale = [entry for entry in compared.stale if selection.selects(entry.code)]
        for entry in baseline.among(stale, paths, path.parent):
            where = " ".join(filter(None, (entry.file, entry.row_id, entry.pointer)))
            _say(f"stale in {path}: {entry.code} {where}: {entry.count:,} not found any more")
    return compared.report


def _write(text: str, output: Path | None) -> None:
    from tempfile import TemporaryDirectory

    from convkit.utils.files import write_atomic

    if output is None:
        sys.stdout.write(text)
        return
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        write_atomic(output, text.encode(), Path(scratch))

"""`convkit validate PATH...`: lint datasets, and write a validation receipt for those that pass."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convkit.cli.train_options import dataclass_options, parameter, with_signature
from convkit.reporters import REPORTERS, get_reporter
from convkit.validate.settings import Settings, rule_names

if TYPE_CHECKING:
    from convkit.findings import Report
    from convkit.validate.run import Result
    from convkit.validate.selection import Selection


def _validate(paths: list[Path], **values: Any) -> None:
    """Check every row and image of datasets. Exit code 1 if there are errors.

    A dataset directory without errors gets a validation receipt, which training requires.
    """
    from convkit.cli.model import resolve_model
    from convkit.validate.config_file import read_config_file

    settings = Settings(**values)
    _check(settings, paths)
    terminal = settings.output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    render = get_reporter(settings.format, terminal=terminal)
    target = resolve_model(settings.model, settings.tokenizer, settings.max_length)
    config = read_config_file(settings.config)
    selection = config.selection(*map(rule_names, (settings.select, settings.ignore, settings.error, settings.warn)))
    baseline = settings.baseline or config.baseline
    _check_baseline(settings, baseline)

    def run() -> "Result":
        from convkit.utils.progress import progress_bar
        from convkit.validate.run import validate

        return validate(
            paths,
            media=settings.media,
            target=target,
            workers=settings.workers,
            bars=progress_bar,
            selection=selection,
        )

    result = _fix(run) if settings.fix else run()
    for line in (*(f"receipt written: {path}" for path in result.receipts), *result.notes):
        _log(line)
    report = result.report
    if baseline:
        report = _apply_baseline(report, baseline, settings, selection, paths)
    _write(render(report), settings.output)
    if report.summary.errors:
        raise typer.Exit(1)


def _check(settings: Settings, paths: list[Path]) -> None:
    """Refuse options that cannot work before anything is read."""
    from convkit import layout
    from convkit.errors import ConvkitError

    output = settings.output
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConvkitError(
            f"--output {output} is a directory, or its parent directory does not exist. Pass the name of a file."
        )
    if settings.fix and Path(layout.STDIN) in paths:
        raise ConvkitError("--fix cannot fix standard input. Write the rows to a file and pass its name.")


def _check_baseline(settings: Settings, baseline: Path | None) -> None:
    from convkit.errors import ConvkitError

    if settings.write_baseline and baseline is None:
        raise ConvkitError("--write_baseline needs the name of the file. Add --baseline FILE.")


def _log(text: str) -> None:
    from convkit.utils.text import printable

    typer.echo(printable(text), err=True)


def _fix(run: "Callable[[], Result]") -> "Result":
    """Fix and validate again until nothing is left to fix: a report may not list all findings."""
    from convkit.utils.text import pluralize
    from convkit.validate.fix import fix_files

    while True:
        result = run()
        changes, skipped = fix_files(result.report.findings)
        if not changes:
            for line in skipped:
                _log(line)
            return result
        for change in changes:
            _log(str(change))
        _log(f"{pluralize(len(changes), 'line')} fixed")


def _apply_baseline(
    report: "Report", path: Path, settings: Settings, selection: "Selection", paths: list[Path]
) -> "Report":
    """Write or read the baseline, and return the findings that it does not accept."""
    from convkit.validate.baseline import compare_to_baseline, entries_under, read_baseline, write_baseline

    if settings.write_baseline:
        write_baseline(path, report)
        _log(f"baseline written: {path}: {len(report.findings):,} findings accepted")
    compared = compare_to_baseline(report, read_baseline(path), path.parent)
    if compared.accepted and not settings.write_baseline:
        errors = report.summary.errors - compared.report.summary.errors
        receipt = "; some are errors, so no receipt is written" if errors else ""
        _log(f"{compared.accepted:,} findings are accepted by {path}{receipt}")
    if settings.media == "decode":  # otherwise findings about images may be missing
        stale = [entry for entry in compared.stale if selection.selects(entry.code)]
        for entry in entries_under(stale, paths, path.parent):
            where = " ".join(filter(None, (entry.file, entry.row_id, entry.pointer)))
            _log(f"stale in {path}: {entry.code} {where}: {entry.count:,} not found any more")
    return compared.report


def _write(text: str, output: Path | None) -> None:
    from tempfile import TemporaryDirectory

    from convkit.utils.files import write_atomic

    if output is None:
        sys.stdout.write(text)
        return
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        write_atomic(output, text.encode(), Path(scratch))


_PATHS = typer.Argument(
    metavar="PATH", help="Dataset directories or row files (*.jsonl, .jsonl.gz, .jsonl.zst; - is standard input)."
)
_METAVARS = {
    "format": "|".join(REPORTERS),
    "model": "PROFILE|DIRECTORY",
    **dict.fromkeys(("select", "ignore", "error", "warn"), "RULE[,...]"),
    **dict.fromkeys(("output", "tokenizer", "config", "baseline"), "FILE"),
}
validate = with_signature(
    _validate,
    [
        parameter("paths", Annotated[list[Path], _PATHS]),
        *dataclass_options(Settings, extra={name: {"metavar": metavar} for name, metavar in _METAVARS.items()}),
    ],
)

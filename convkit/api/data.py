"""Convert, split, validate, describe and score datasets. Needs no torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from convkit.api.options import Pathlike, problems, progress_bars, validated
from convkit.dataset import Dataset
from convkit.errors import ConvkitError
from convkit.findings import Report
from convkit.utils.progress import ProgressBars

if TYPE_CHECKING:
    from convkit.converters.base import Converter, Options
    from convkit.metrics.results import Comparison, Scores
    from convkit.stats import Stats


class ValidationReport(Report):
    """The result of `validate`: findings, totals, and what happened to validation receipts."""

    receipts: tuple[Path, ...] = ()
    """The receipts that were written, for the dataset directories without errors."""
    notes: tuple[str, ...] = ()
    """Messages about receipts, such as that one was removed."""

    @property
    def ok(self) -> bool:
        """True if there is no finding of severity error."""
        return not self.summary.errors

    def to(self, format: str) -> str:
        """Return the report as text, json, jsonl, github, sarif, junit or markdown."""
        from convkit.reporters import get_reporter

        return get_reporter(format)(Report(summary=self.summary, findings=self.findings))


def load_dataset(path: Pathlike) -> Dataset:
    """Open a dataset directory.

    Raises:
        DatasetError: it has no manifest, or the manifest is invalid.
    """
    return Dataset.open(Path(path))


def convert(
    converter: str,
    out_dir: Pathlike,
    *,
    source: Pathlike | None = None,
    workers: int | None = None,
    max_errors: int | str | None = None,
    on_error: Literal["quarantine", "fail"] = "quarantine",
    progress: bool = False,
    **options: Any,
) -> Dataset:
    """Convert a source into a dataset directory, or resume an interrupted conversion.

    Args:
        converter: a name that `convkit convert --list` lists.
        source: a folder or archive; None for the converter's default source.
        workers: worker processes; None for one per CPU, 0 to convert in this process.
        max_errors: stop if more is quarantined: a number, or a share such as "5%".
        options: the converter's own options, such as `num_frames=8`.

    Raises:
        SourceError: the source is missing, or not in a known layout.
        DatasetError: `out_dir` holds something else.
        ConvkitError: an option is unknown, or more was quarantined than allowed.
    """
    from convkit.converters import load_converter

    return _convert(
        load_converter(converter), out_dir, source, options, workers, max_errors, on_error, progress_bars(progress)
    )


def split(
    dataset: "Dataset | Pathlike",
    out_dir: Pathlike,
    ratios: Mapping[str, float],
    *,
    seed: int = 0,
    stratify: bool = True,
    splits: Sequence[str] = (),
    link: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> Dataset:
    """Divide a dataset into new splits. Rows with equal groups or images stay together.

    Args:
        ratios: the share of each new split, such as `{"train": 0.9, "val": 0.1}`.
        stratify: keep the share of each answer equal in all splits.
        splits: the splits to pool; all that have answers if empty.
        link: hard-link images instead of copying them.

    Raises:
        ConvkitError: the ratios are invalid, or a split would be empty.
    """
    from convkit.split.converter import Split

    options = {
        "ratios": ",".join(f"{name}={share}" for name, share in ratios.items()),
        "seed": seed,
        "stratify": stratify,
        "splits": ",".join(splits),
        "link": link,
    }
    source = dataset.directory if isinstance(dataset, Dataset) else dataset
    return _convert(Split, out_dir, source, options, workers, None, "fail", progress_bars(progress))


def validate(
    *paths: "Dataset | Pathlike",
    model: str | None = None,
    max_length: int | None = None,
    tokenizer: Pathlike | None = None,
    media: Literal["decode", "header", "none"] = "decode",
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    workers: int | None = None,
    progress: bool = False,
) -> ValidationReport:
    """Check every row and image of datasets, and write a receipt for each dataset directory without errors.

    Args:
        paths: dataset directories or row files.
        model: a token profile or a checkpoint directory; adds rules CK4xx.
        max_length: with `model`, the maximum tokens per row.
        tokenizer: with `model`, a tokenizer.json to count text exactly.
        media: how much of each image to read.
        select: report only these rules: codes, prefixes or slugs.
        ignore: do not report these rules. An ignored error still prevents the receipt.

    Raises:
        ConvkitError: a path is missing or cannot be read, or an option is invalid.
    """
    from convkit.target_model import find_target
    from convkit.validate.config_file import ConfigFile
    from convkit.validate.run import validate as run
    from convkit.validate.settings import Media

    if not paths:
        raise ConvkitError("Pass at least one dataset directory or row file.")
    if media not in get_args(Media):
        raise ConvkitError(f"media must be one of {', '.join(get_args(Media))}, not {media!r}.")

    target, _ = find_target(model or "", Path(tokenizer) if tokenizer else None, max_length)
    result = run(
        [path.directory if isinstance(path, Dataset) else Path(path) for path in paths],
        media=media,
        target=target,
        workers=workers,
        bars=progress_bars(progress),
        selection=ConfigFile().selection([*select], [*ignore], [], []),
    )
    report = result.report
    return ValidationReport(
        summary=report.summary, findings=report.findings, receipts=result.receipts, notes=result.notes
    )


def stats(
    path: "Dataset | Pathlike", *, model: str | None = None, tokenizer: Pathlike | None = None, top: int = 10
) -> "Stats":
    """Compute statistics of a dataset directory or row file: turns, images, answers, and tokens for a model.

    Args:
        model: a token profile or a checkpoint directory.
        top: the number of most frequent answers to list.

    Raises:
        ConvkitError: the path cannot be read, or the model is unknown.
    """
    from convkit.stats import compute_stats
    from convkit.target_model import find_target

    target, _ = find_target(model or "", Path(tokenizer) if tokenizer else None)
    source = path.directory if isinstance(path, Dataset) else Path(path)
    return compute_stats(source, target, model=target.spec if target else "", top=top)


def score(
    predictions: Pathlike, *, compare: Pathlike | None = None, metrics: Sequence[str] = (), **options: Any
) -> "Scores | Comparison":
    """Score a predictions file, or compare it with that of another model for the same turns.

    Args:
        compare: the other model's predictions file.
        metrics: metrics for every dataset; those of each dataset if empty.
        options: those of `convkit score`.

    Raises:
        ConvkitError: a file is invalid, a metric is unknown, or the files hold other turns.
    """
    from convkit.metrics.compare import compare as compare_predictions
    from convkit.metrics.options import ScoreOptions
    from convkit.metrics.predictions import read_predictions
    from convkit.metrics.score import score as score_predictions

    chosen = validated(ScoreOptions, {"metrics": tuple(metrics)} | options, "convkit.score")
    found = read_predictions(Path(predictions))
    if compare is None:
        return score_predictions(found, chosen)
    return compare_predictions(read_predictions(Path(compare)), found, chosen)


def _convert(
    converter: "type[Converter[Any]]",
    out_dir: Pathlike,
    source: Pathlike | None,
    options: Mapping[str, Any],
    workers: int | None,
    max_errors: int | str | None,
    on_error: Literal["quarantine", "fail"],
    bars: ProgressBars,
) -> Dataset:
    from convkit.convert.error_budget import Budget, Policy
    from convkit.convert.run import convert as run

    budget = None if max_errors is None else Budget.parse(str(max_errors))
    run(
        converter,
        None if source is None else os.fspath(source),
        _converter_options(converter, options),
        Path(out_dir),
        workers=workers,
        policy=Policy(on_error, budget),
        progress_bars=bars,
    )
    return Dataset.open(Path(out_dir))


def _converter_options(converter: "type[Converter[Any]]", values: Mapping[str, Any]) -> "Options":
    from pydantic import ValidationError

    try:
        return converter.Options.model_validate(values)
    except ValidationError as error:
        command = "split" if converter.name == "split" else f"convert {converter.name}"
        raise ConvkitError(f"{problems(error)}. `convkit {command} --help` lists the options.") from None

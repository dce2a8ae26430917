"""`convkit evaluate`: what a model answers to every turn of a split, and how good that is."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from convkit.cli.score import names, score


def _compare(files: tuple[Path, Path] | None) -> None:
    if files:
        baseline, predictions = files
        score(predictions, compare=baseline)
        raise typer.Exit


def evaluate(
    data_dir: Annotated[
        Path,
        typer.Option("--data_dir", help="A dataset directory with a receipt of `convkit validate` for this model."),
    ],
    model: Annotated[Path, typer.Option("--model", help="The checkpoint's directory.")],
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Where predictions.jsonl and scores.json go. Begun ones go on.")
    ],
    adapter: Annotated[Path | None, typer.Option("--adapter", help="A LoRA adapter's directory.")] = None,
    split: Annotated[str, typer.Option("--split", help="What is asked.")] = "val",
    context: Annotated[Literal["gold", "images_only"], typer.Option("--context", help="")] = "gold",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first rows only.")] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Questions answered at once.")] = 16,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", min=1, max=10_000, help="Longer answers are cut off.")
    ] = 64,
    max_tokens: Annotated[
        int, typer.Option("--max_tokens", min=1, help="Of a prompt; longer ones are refused.")
    ] = 8192,
    bf16: Annotated[bool, typer.Option("--bf16/--no_bf16", help="Compute in bfloat16.")] = False,
    num_crops: Annotated[
        int | None, typer.Option("--num_crops", min=1, help="At most so many tiles an image, for Phi-3-vision.")
    ] = None,
    dataloader_num_workers: Annotated[
        int, typer.Option("--dataloader_num_workers", min=0, help="Processes that read images; 0: none.")
    ] = 2,
    metrics: Annotated[
        str, typer.Option("--metrics", help="As for `convkit score`. Default: those of each data set.")
    ] = "",
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Only compare two predictions files of the same turns: what B wins and loses against A. The same as "
            "`convkit score B --compare A`, which has options.",
            exists=True,
            dir_okay=False,
            is_eager=True,
            callback=_compare,
        ),
    ] = None,
) -> None:
    """Let a model answer every turn of a split, and score the answers; killed at any instant, it goes on.

    Runs by itself, or once for each GPU under torchrun. Exit code 1 if a turn could not be scored though others could.
    """
    from convkit.cli.report import at_the_end
    from convkit.cli.train_options import silence_libraries
    from convkit.errors import MissingExtra
    from convkit.metrics.score import ScoreOptions, check_metric_names
    from convkit.reporters.scores import render
    from convkit.utils.progress import progress_bar

    silence_libraries()
    scored_by = ScoreOptions(names(metrics))
    check_metric_names(scored_by)
    try:
        from convkit.train.distributed.world import world
        from convkit.train.evaluate import run
        from convkit.train.evaluate.options import Options
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Evaluation") from None
    options = Options(
        data_dir=data_dir,
        model=model,
        output_dir=output_dir,
        split=split,
        adapter=adapter,
        context=context,
        limit=limit,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        max_tokens=max_tokens,
        bf16=bf16,
        num_crops=num_crops,
        dataloader_num_workers=dataloader_num_workers,
    )
    with world() as joined:
        predictions = run.evaluate(options, joined, progress_bar)
        if not joined.first:
            return
    found = run.scores(predictions, scored_by)
    typer.echo(render(found), nl=False)
    typer.echo(f"written: {predictions}")
    at_the_end(output_dir)
    labelled = any(source.turns > len(source.unlabelled) for source in found.sources)
    if labelled and not found.complete:
        raise typer.Exit(1)

"""`convkit bench`: how fast training is on this machine, and how fast data is made ready for it."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from convkit.cli.train_options import dataclass_options, parameter, silence_libraries, with_signature
from convkit.errors import ConvkitError
from convkit.train.bench import NOT_MEASURED
from convkit.train.config import ALIASES, SECTIONS, Config

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure how fast training is on this machine, and how fast data is made ready for it.",
)
_METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_vision_model": True},
    "lora": {"use_lora": True},
    "qlora": {"use_qlora": True},
}
_USUAL: dict[str, Any] = {
    "lora_rank": 32,
    "lora_alpha_ratio": 0.5,
    "dataloader_num_workers": min(8, os.cpu_count() or 1),
}
"""The recipe's adapters for DocVQA; and 8 workers, or as many as there are cores."""


def _train(
    method: str,
    workload: str,
    geometry: Literal["full", "tiny"],
    steps: int,
    warm: int,
    profiled: int,
    baseline: str | None,
    baseline_steps: int,
    json_file: Path | None,
    **values: Any,
) -> None:
    """Train Phi-3.5-vision with random weights for some steps, as `convkit train` does, and say how fast that is.

    Prints images and tokens a second, the share of what matrix products come to on this device (MFU), memory, and
    where the time of a step goes; docs/performance.md says how each is measured. All else is the trainer itself: the
    options below are those of `convkit train`.
    """
    given = {name: value for name, value in values.items() if value is not None}
    _require_folder(json_file)
    silence_libraries()
    from rich.console import Console

    from convkit.errors import MissingExtra
    from convkit.train.config import resolve
    from convkit.utils.progress import no_progress_bar, progress_bar

    try:
        from convkit.train.bench import render
        from convkit.train.bench.run import Steps
        from convkit.train.bench.train import Bench, Result, bench
        from convkit.train.bench.workloads import WORKLOADS
        from convkit.train.distributed.world import world
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Measuring") from None
    usual = {
        **_USUAL,
        "num_crops": WORKLOADS[workload].num_crops,
        "bf16": geometry == "full" and not given.get("fp16"),
        "data_dir": Path(),
        "model": Path("random"),
        "output_dir": Path(),
    }
    chosen = resolve({**usual, **_METHODS[method], **given})
    what = Bench(
        workload="" if "data_dir" in given else workload,
        geometry=geometry,
        steps=Steps(warm, steps, profiled),
        baseline=Steps(1, baseline_steps, 0) if baseline else None,
    )

    def keep(result: Result) -> None:
        if json_file:
            json_file.write_text(json.dumps(result.recorded(), indent=2) + "\n")

    with world() as joined:
        result = bench(chosen, what, joined, progress_bar if chosen.tqdm else no_progress_bar, keep)
    Console(soft_wrap=True).print(*render.render(result), sep="\n")
    if result.failure:
        raise ConvkitError(result.failure)


def _require_folder(json_file: Path | None) -> None:
    """Refuse before minutes of measuring what could not be written after them."""
    if json_file and not json_file.absolute().parent.is_dir():
        raise ConvkitError(f"--json {json_file}: there is no folder {json_file.parent}. Make it first.")


def _own() -> dict[str, tuple[Any, Any]]:
    return {
        "method": (
            Annotated[Literal["full", "frozen", "lora", "qlora"], typer.Option("--method", help="What is trained.")],
            "full",
        ),
        "workload": (
            Annotated[
                Literal["document", "video", "mixed"],
                typer.Option(
                    "--workload",
                    help="A page of 17 crops a row; 8 frames of a video; or a mixture.",
                ),
            ],
            "document",
        ),
        "data_dir": (
            Annotated[
                Path | None, typer.Option("--data_dir", help="A dataset directory instead; it needs no receipt.")
            ],
            None,
        ),
        "geometry": (
            Annotated[
                Literal["full", "tiny"],
                typer.Option("--geometry", help="The size of Phi-3.5-vision, or a toy for the CPU."),
            ],
            "full",
        ),
        "steps": (Annotated[int, typer.Option("--steps", min=1, help="Steps that are measured.")], 5),
        "warm": (Annotated[int, typer.Option("--warm", min=1, help="Steps before them.")], 3),
        "profiled": (
            Annotated[
                int,
                typer.Option("--profiled", min=0, help="The last of them again, profiled, for the GPU's idle time."),
            ],
            1,
        ),
        "baseline": (
            Annotated[
                Literal["recipe"] | None,
                typer.Option("--baseline", help="Measure the recipe's way as well, in the same process."),
            ],
            None,
        ),
        "baseline_steps": (
            Annotated[int, typer.Option("--baseline_steps", min=1, help="Steps of it that are measured.")],
            2,
        ),
        "json_file": (
            Annotated[Path | None, typer.Option("--json", help="Write all figures here as well, as they come.")],
            None,
        ),
    }


@app.command("data")
def data(
    data_dir: Annotated[
        Path | None, typer.Option("--data_dir", help="A dataset directory. Default: rows that are made for it.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --data_dir: what is read.")] = "train",
    workload: Annotated[
        Literal["document", "video", "mixed"], typer.Option("--workload", help="Without it: such rows.")
    ] = "document",
    num_crops: Annotated[
        int | None, typer.Option("--num_crops", min=1, help="At most so many tiles an image. Default: the workload's.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=10, help="Rows of each measurement.")] = 200,
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", min=1, help="Processes; repeatable. Default: 1, 2, 4, … cores."),
    ] = None,
    needs: Annotated[
        list[float] | None,
        typer.Option("--needs", help="How many workers so many images/s take; repeatable."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here as well.")] = None,
) -> None:
    """Make batches of rows as training does, without a model, and say how fast and where the time goes.

    Reading headers and making tokens, decoding, scaling, and cutting into tiles are timed in one process; whole
    batches with as many worker processes as said.
    """
    _require_folder(json_file)
    silence_libraries()
    from rich.console import Console

    from convkit.errors import MissingExtra
    from convkit.utils.progress import progress_bar

    try:
        from convkit.train.bench import dataloading
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "Measuring") from None
    source = dataloading.Source(data_dir, split, workload, num_crops)
    seen = dataloading.feed(source, rows, workers or _powers_of_two(), needs or [], progress_bar)
    Console().print(*dataloading.render(seen), sep="\n")
    if json_file:
        json_file.write_text(json.dumps(seen.recorded(), indent=2) + "\n")


def _powers_of_two() -> list[int]:
    """Up to the number of cores."""
    cores = os.cpu_count() or 1
    return [2**power for power in range(cores.bit_length())]


app.command("train")(
    with_signature(
        _train,
        [parameter(name, annotation, default) for name, (annotation, default) in _own().items()]
        + dataclass_options(
            Config,
            without={*NOT_MEASURED, "data_dir", "use_lora", "use_qlora"},
            defaults=_USUAL,
            aliases=ALIASES,
            sections=SECTIONS,
            unset_is_none=True,
        ),
    )
)

"""Benchmarks that need a GPU, whose minutes are dear: that their options are those of the commands they call."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from benchmarks import learns, train_gpu, train_speed
from convkit.cli import app

TRAIN = {
    **{name: [*train_gpu.COMMON, *own] for name, own in train_gpu.METHODS.items()},
    "learns": learns.options([]),
}
BENCH = {name: f"{train_speed.COMMON} {own}".split() for name, own in train_speed.RUNS.items()}


def parse(options: Sequence[str], *commands: str) -> None:
    """Raises what the command line says of options that it does not know."""
    command = typer.main.get_command(app)
    context = command.make_context("convkit", [*commands, *options], resilient_parsing=False)
    for name in commands:
        command = command.get_command(context, name)  # type: ignore[attr-defined]
    command.make_context(commands[-1], list(options))


@pytest.mark.parametrize("name", TRAIN)
def test_options_are_those_of_train(name: str) -> None:
    parse(TRAIN[name], "train")


@pytest.mark.parametrize("name", BENCH)
def test_options_are_those_of_bench_train(name: str) -> None:
    parse(BENCH[name], "bench", "train")


def test_names_of_groups_stand_for_their_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["train_speed", "--results", str(tmp_path / "new"), "memory", "disk", "video"])
    told, extra = train_speed.arguments()
    assert told.names == ["lora_16", "qlora_10", "video"] and extra == []  # without pages there is no disk

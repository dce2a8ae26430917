"""Options of the GPU benchmarks: the commands that they call accept them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import compare_train, curves, learns, train_gpu, train_speed
from convkit.cli import app

TRAIN = {
    **{name: [*train_gpu.COMMON, *own] for name, own in train_gpu.METHODS.items()},
    **{f"curves, {name}": [*curves.COMMON, *own] for name, own in curves.VARIANTS.items()},
    "learns": learns.options([]),
}


def parse(command: Any, options: Sequence[str], *names: str) -> None:
    """Parse the options of a subcommand; raises typer's error for an unknown one."""
    command.make_context("convkit", [*names, *options], resilient_parsing=False)
    for name in names:
        command = command.get_command(None, name)
    command.make_context("command", list(options))


@pytest.mark.parametrize("name", TRAIN)
def test_convkit_train_accepts_the_options(name: str) -> None:
    parse(typer.main.get_command(app), TRAIN[name], "train")


@pytest.mark.parametrize("name", train_speed.RUNS)
def test_the_measuring_command_accepts_the_options(name: str) -> None:
    module, *options = train_speed.command(name)
    if module == "convkit":
        bench, train, *options = options
        parse(typer.main.get_command(app), options, bench, train)
    else:
        parse(typer.main.get_command(compare_train.app), options)


def test_later_options_override_earlier_ones() -> None:
    words = train_speed.command("float32_adapters", ["--steps", "2", "--no_bf16", "--optim", "adamw_bf16"])
    assert [words.count(name) for name in ("--steps", "--bf16", "--no_bf16", "--optim")] == [1, 0, 1, 1]
    assert (words[words.index("--steps") + 1], words[-1]) == ("2", "adamw_bf16")


def test_group_names_stand_for_their_runs(tmp_path: Path) -> None:
    given = train_speed.arguments(["--results", str(tmp_path / "new"), "memory", "video", "--", "--steps", "2"])
    assert given.names == ["lora_16", "qlora_10", "video"] and given.extra == ["--steps", "2"]
    assert "pages" not in train_speed.arguments(["--results", str(tmp_path)]).names


@pytest.mark.parametrize(
    ("given", "message"),
    [(["video", "vidoe"], "no run vidoe; choose from methods, "), (["disk"], "pages needs --pages")],
)
def test_unknown_or_incomplete_runs_are_refused(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train_speed.arguments(given)
    assert message in capsys.readouterr().err

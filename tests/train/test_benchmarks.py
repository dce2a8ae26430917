"""Benchmarks that need a GPU, whose minutes are dear: that their options are those of `convkit train`."""

from collections.abc import Sequence

import pytest
import typer

from benchmarks import learns, train_gpu
from convkit.cli import app


@pytest.mark.parametrize(
    "options",
    [*([*train_gpu.COMMON, *own] for own in train_gpu.METHODS.values()), learns.options([])],
    ids=[*train_gpu.METHODS, "learns"],
)
def test_options_are_those_of_train(options: Sequence[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("convkit", ["train", *options], resilient_parsing=False)
    train = command.get_command(context, "train")  # type: ignore[attr-defined]
    train.make_context("train", list(options))

"""Options made from a dataclass: names, defaults, bounds, sections."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from annotated_types import Ge, Gt, Le
from typer.testing import CliRunner

from convkit.cli.commands import Command
from convkit.cli.train_options import dataclass_options, parameter, with_signature


@dataclass(frozen=True, kw_only=True)
class Options:
    folder: Annotated[Path, "Folder to read."]
    names: Annotated[list[str] | None, "Names to keep."] = None
    mode: Annotated[Literal["fast", "exact"], "How to compute."] = "fast"
    bf16: Annotated[bool, "Compute in bfloat16."] = False
    limit: Annotated[int | None, "Rows to read.", Ge(1), Le(9)] = None
    rank: Annotated[int, "Adapter rank.", Gt(0)] = 8


def run(arguments: list[str], **how: Any) -> tuple[int, str, dict[str, Any]]:
    given: dict[str, Any] = {}
    app = typer.Typer(rich_markup_mode=None)
    command = with_signature(given.update, [*dataclass_options(Options, **how), parameter("workers", int, 2)])
    app.command(cls=Command)(command)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output, given


def test_every_field_is_an_option_with_its_default() -> None:
    code, _, given = run(["--folder", "a"])
    assert (code, given.pop("workers")) == (0, 2)
    assert given == asdict(Options(folder=Path("a")))


def test_options_keep_the_types_of_the_fields() -> None:
    line = "--folder a --names x --names y --mode exact --bf16 --limit 9 --rank 1 --workers 3"
    code, _, given = run(line.split())
    assert code == 0
    assert given == {
        "folder": Path("a"),
        "names": ["x", "y"],
        "mode": "exact",
        "bf16": True,
        "limit": 9,
        "rank": 1,
        "workers": 3,
    }


@pytest.mark.parametrize("wrong", ["--limit 0", "--limit 10", "--rank 0", "--mode slow", "--unknown 1"])
def test_values_out_of_bounds_are_refused(wrong: str) -> None:
    code, output, given = run(["--folder", "a", *wrong.split()])
    assert (code, given) == (2, {})
    assert wrong.split()[0] in output


def test_a_field_without_default_is_required() -> None:
    code, output, _ = run([])
    assert code == 2
    assert "--folder" in output


def test_options_that_are_not_given_are_none_where_a_file_may_set_them() -> None:
    code, _, given = run([], unset_is_none=True)
    assert (code, given.pop("workers")) == (0, 2)
    assert given == dict.fromkeys(["folder", "names", "mode", "bf16", "limit", "rank"])
    _, help_text, _ = run(["--help"], unset_is_none=True)
    assert "Folder to read. Required." in help_text
    assert "Adapter rank. Default: 8." in help_text


def test_fields_can_be_left_out_renamed_grouped_and_given_other_defaults() -> None:
    how: dict[str, Any] = {
        "without": {"names"},
        "aliases": {"rank": "r"},
        "defaults": {"folder": Path("b"), "limit": 3},
        "sections": {"folder": "Data", "rank": "LoRA"},
        "extra": {"limit": {"metavar": "ROWS"}},
    }
    code, _, given = run(["--r", "4"], **how)
    assert (code, given["rank"], given["folder"], given["limit"]) == (0, 4, Path("b"), 3)
    assert "names" not in given
    _, help_text, _ = run(["--help"], **how)
    assert help_text.index("Data:") < help_text.index("--limit ROWS") < help_text.index("LoRA:")
    assert help_text.index("LoRA:") < help_text.index("--rank")

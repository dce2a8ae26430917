"""Arguments of all commands: repeated and unknown options, short names, the positional source, shell completion."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from convkit.cli import app
from convkit.converters import CONVERTERS
from tests.conftest import ROOT


def run(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; return the exit code and the output with single spaces."""
    result = CliRunner().invoke(app, list(arguments), prog_name="convkit")
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the command object of every command, with one per converter."""
    root: Any = typer.main.get_command(app)
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    for words, command in waiting:
        yield words, command
        if hasattr(command, "list_commands"):
            context = command.context_class(command, info_name="convkit")
            names = command.list_commands(context)
            waiting.extend(((*words, name), command.get_command(context, name)) for name in names)


def test_every_command_refuses_an_option_that_is_given_twice() -> None:
    checked = 0
    for words, command in commands():
        options = [o for o in command.params if o.param_type_name == "option" and not o.is_eager and not o.multiple]
        for option in options[:1]:
            code, output = run(*words, *[option.opts[0], *([] if option.is_flag else ["1"])] * 2)
            assert code == 2, words
            assert re.search(rf"{option.opts[0]}\b.* is given more than once, but takes one value", output), output
            checked += 1
    assert checked >= len(CONVERTERS) + 12


@pytest.mark.parametrize(
    "twice",
    [
        "--data_dir a --data_dir b",
        "--data_dir a --data-dir a",
        "--model a --model_name_or_path b",
        "-o a --output_dir b",
        "--compile --no_compile",
        "--wd=0 --weight-decay 0",
        "--config a --config b",
    ],
)
def test_all_spellings_of_an_option_count_as_one(twice: str) -> None:
    code, output = run("train", *twice.split())
    assert code == 2
    assert "is given more than once, but takes one value." in output


def test_the_error_about_a_repeated_option_names_its_spellings_and_separator() -> None:
    assert "Error: --model / --model_name_or_path is given more" in run("train", "--model", "a", "--model", "b")[1]
    _, output = run("score", "p.jsonl", "--metrics", "anls", "--metrics", "accuracy")
    assert "--metrics is given more than once, but takes one value. Separate several values by commas." in output


def test_options_that_end_the_command_may_be_repeated() -> None:
    assert run("train", "-h", "--help")[0] == run("-V", "--version")[0] == 0
    code, output = run("evaluate", *["--compare", "a", "b"] * 2)
    assert code == 2
    assert "--compare is given more than once" in output


def test_options_that_take_a_list_are_repeatable(tmp_path: Path) -> None:
    _, output = run("report", str(tmp_path / "run"), "--evaluation", "a", "--evaluation", "b")
    assert "more than once" not in output
    _, output = run("validate", str(tmp_path), "--select", "CK2", "--select", "CK3")
    assert "has no row files" in output


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --modle x", "There is no option --modle. Did you mean --model"),
        ("validate . --fromat json", "There is no option --fromat. Did you mean --format"),
        ("convert ucf101 --num-frame 2", "There is no option --num_frame. Did you mean --num_frames"),
        ("bench train --stps 3", "There is no option --stps. Did you mean --steps"),
        ("--versoin", "There is no option --versoin. Did you mean --version?"),
        ("stats . --zzz", "There is no option --zzz."),
        ("stats . -x", "There is no option -x."),
        ("train --lr 1e-4", "There is no option --lr. Did you mean --learning_rate?"),
        ("train --per_device_train_batch_size 2", "Did you mean --batch_size or --batch_size_per_gpu?"),
        ("bench train --lora_r 8", "There is no option --lora_r. Did you mean --lora_rank?"),
        ("init-vlm -o x --vision huge", "Invalid value for '--vision': 'huge' is not one of 'tiny', 'small', 'base'"),
        ("convert image-folder . -o x --prompt hi", "--prompt hi: the text must contain {classes}. See: convkit"),
        ("trian", "No such command 'trian'. Did you mean 'train'?"),
        ("bench trian", "No such command 'trian'. Did you mean 'train'?"),
        ("convert ucf102", "unknown converter 'ucf102'. Did you mean ucf101? Known: "),
        ("convert ucf101 -out data", "-out has a single dash. Did you mean --out_dir?"),
        ("train -data_dir=x", "-data_dir=x has a single dash. Did you mean --data_dir?"),
    ],
)
def test_wrong_options_and_commands_get_a_remedy(line: str, message: str) -> None:
    code, output = run(*line.split())
    assert code != 0
    assert message in output


def test_help_describes_types_without_terms_of_libraries() -> None:
    for words, _ in commands():
        _, output = run(*words, "--help")
        assert not re.search(r" range>|list\[|\w\.\.\.\s*$", output), words


def test_values_that_look_like_options_are_not_checked_after_two_dashes() -> None:
    assert "single dash" not in run("stats", "--", "-format")[1]


def test_commands_may_be_spelled_with_underscores() -> None:
    code, output = run("init_vlm", "--help")
    assert code == 0
    assert "Create a SmolVLM" in output


def outputs() -> list[tuple[tuple[str, ...], str]]:
    """Return each command that writes a directory or file, with the name of that option."""
    names = {"--out_dir", "--output_dir", "--out", "--output"}
    return [
        (words, option.opts[0]) for words, command in commands() for option in command.params if option.opts[0] in names
    ]


def test_every_option_for_the_output_is_also_called_o() -> None:
    found = {words for words, _ in outputs()}
    assert {("train",), ("validate",), ("merge",), ("split",), ("convert", "nlvr2"), ("inspect",)} <= found
    for words, name in outputs():
        command = dict(commands())[words]
        option = next(option for option in command.params if option.opts[0] == name)
        assert "-o" in option.opts, words


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "photos/train/apple").mkdir(parents=True)
    shutil.copy(ROOT / "docs/report.png", tmp_path / "photos/train/apple/1.png")
    return tmp_path / "photos"


def test_the_source_may_be_an_argument_or_an_option(pictures: Path, tmp_path: Path) -> None:
    common = ("convert", "image-folder", "--workers", "0")
    assert run(*common, str(pictures), "-o", str(tmp_path / "a"))[0] == 0
    assert run(*common, "--source", str(pictures), "--out_dir", str(tmp_path / "b"))[0] == 0
    assert run(*common, str(pictures), "--source", str(pictures), "-o", str(tmp_path / "c"))[0] == 0
    for name in ("b", "c"):
        assert (tmp_path / name / "dataset.json").read_bytes() == (tmp_path / "a/dataset.json").read_bytes()


def test_two_different_sources_are_refused(pictures: Path, tmp_path: Path) -> None:
    code, output = run("convert", "image-folder", str(pictures), "--source", "other", "-o", str(tmp_path / "out"))
    assert code != 0
    assert f"two sources are given: {pictures} and --source other. Leave one out." in output
    assert not (tmp_path / "out").exists()


def complete(*words: str, shell: str = "bash") -> str:
    """Return what the shell offers for the last word."""
    environment = {
        **os.environ,
        "_CONVKIT_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": " ".join(["convkit", *words]),
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": " ".join(["convkit", *words]),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return CliRunner().invoke(app, [], prog_name="convkit", env=environment).output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_converters_and_options_are_completed(shell: str) -> None:
    assert "validate" in complete("va", shell=shell)
    assert "train" not in complete("va", shell=shell)
    assert "ucf101" in complete("convert", "uc", shell=shell)
    assert "--num_frames" in complete("convert", "ucf101", "--num-f", shell=shell)


def test_completion_shows_whole_summaries() -> None:
    assert "validate\tCheck every row and image of a dataset, and write a receipt." in complete("va", shell="fish")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_CONVKIT_COMPLETE", f"source_{shell}")
    script = CliRunner().invoke(app, [], prog_name="convkit").output
    assert "_CONVKIT_COMPLETE=complete_" + shell in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_bash_completes_with_the_script_of_show_completion(tmp_path: Path) -> None:
    command = tmp_path / "convkit"
    command.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m convkit "$@"\n')
    command.chmod(0o755)
    lines = [
        'eval "$(convkit --show-completion)"',
        "COMP_WORDS=(convkit va) COMP_CWORD=1",
        "_convkit_completion convkit",
        'echo "${COMPREPLY[@]}"',
    ]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("validate\n", "")

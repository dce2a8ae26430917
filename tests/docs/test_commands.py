"""Test that every convkit command in the documentation exists, with the options and types of values shown."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer import Exit
from typer._click.exceptions import BadParameter, UsageError
from typer.main import get_command

from convkit.cli import app
from convkit.errors import ConvkitError
from tests.docs.pages import NAMES, ROOT, Block, blocks, code_spans

_COMMAND = re.compile(r"(?:^\s*(?:\$ )?|run: |\| |torchrun .*-m |accelerate .*-m |python -m )convkit (.*)")
"""A command at the start of a line, in a workflow, behind a pipe, or started by another program."""
_LANGUAGES = ("", "console", "text", "bash", "yaml")
_PLACEHOLDERS = {"NAME": "image-folder", "…": "", "...": ""}
_VARIABLES = ("CODE", "captions")
"""Placeholders, and the converter of an example."""
_PREDICTION = '{"id":"1","source":"pets","turn":0,"prediction":"cat","gold":"cat"}\n'
"""Content of input files, for options that are checked by reading their file."""


def _commands(block: Block) -> Iterator[str]:
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        found = _COMMAND.match(line) or _COMMAND.search(line)
        if found and block.language in _LANGUAGES:
            yield found[1]


def _arguments(command: str) -> list[str]:
    """Return the arguments of a command without comment, pipe and redirection."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found = list(lexer)
    end = next((n for n, word in enumerate(found) if set(word) <= set("|&;<>")), len(found))
    return [word for word in (_PLACEHOLDERS.get(word, word) for word in found[:end]) if word]


def _parse(arguments: list[str]) -> None:
    """Parse a command line without running the command.

    Raises:
        UsageError: the command, an option or a value is invalid.
    """
    command: Any = get_command(app)
    context = command.make_context("convkit", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def _missing(error: Exception) -> Path | None:
    """Create the input that an error calls missing; return its path, or None for another error."""
    found = re.search(r"(file|dir|directory|path) '([^']+)' does not exist", str(error), re.IGNORECASE)
    if not found:
        return None
    path = Path(found[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PREDICTION) if found[1].lower() == "file" else path.mkdir()
    return path


SHOWN = sorted({(name, command) for name in NAMES for block in blocks(ROOT / name) for command in _commands(block)})
PLUGIN = "convert captions "
"""A command of the example converter in docs/converters.md; tests/convert/test_plugin.py runs it."""


@pytest.mark.parametrize(("name", "command"), [shown for shown in SHOWN if not shown[1].startswith(PLUGIN)])
def test_a_command_in_the_documentation_is_valid(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(4):  # inputs that must exist are created one by one
        try:
            with suppress(Exit):  # of an option that ends the command, such as --help
                _parse(_arguments(command))
        except BadParameter as error:
            if not _missing(error):
                raise
        else:
            return
    pytest.fail("inputs are missing after all were created")


@pytest.mark.parametrize("name", NAMES)
def test_options_of_a_command_in_the_text_exist(name: str) -> None:
    spans = [span for span in code_spans(ROOT / name) if span.startswith("convkit ")]
    assert {span: unknown for span in spans if (unknown := _unknown(_arguments(span.removeprefix("convkit "))))} == {}


def _unknown(words: list[str]) -> list[str]:
    """Return the words that are neither commands nor options, where one of both is expected."""
    command: Any = get_command(app)
    while hasattr(command, "get_command") and words and not words[0].startswith("-") and words[0] not in _VARIABLES:
        subcommand = command.get_command(command.make_context("convkit", [], resilient_parsing=True), words[0])
        if subcommand is None:
            return words[:1]
        command, words = subcommand, words[1:]
    known = {"--help"}.union(*(parameter.opts + parameter.secondary_opts for parameter in command.params))
    return [word for word in words if word.startswith("--") and word.replace("-", "_").lstrip("_") not in _plain(known)]


def _plain(options: set[str]) -> set[str]:
    return {option.lstrip("-").replace("-", "_") for option in options}


def test_an_unknown_command_or_option_in_the_text_is_detected() -> None:
    assert _unknown(["valdate", "data"]) == ["valdate"]
    assert _unknown(["bench", "train", "--methods", "lora", "--json", "a.json"]) == ["--methods"]


@pytest.mark.parametrize("command", ["valdate data", "validate data --strict", "train --num_train_epochs many"])
def test_an_invalid_command_is_detected(command: str) -> None:
    with pytest.raises((UsageError, ConvkitError)):
        _parse(_arguments(command))


def test_commands_are_found_in_all_places() -> None:
    places = {place for place, _ in SHOWN}
    assert {"README.md", "docs/index.md", "docs/training.md", "docs/howto/lora.md"} <= places
    assert ("docs/validate.md", "validate data --format github") in SHOWN
    assert len(SHOWN) > 90

"""Reporters turn a report into text. A name is looked up only when it is used, so none costs an import."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from convkit.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.findings import Report

Reporter = Callable[["Report"], str]

REPORTERS = {
    "text": "convkit.reporters.text:render",
    "json": "convkit.reporters.json:render",
    "jsonl": "convkit.reporters.jsonl:render",
    "github": "convkit.reporters.github:render",
    "sarif": "convkit.reporters.sarif:render",
    "junit": "convkit.reporters.junit:render",
    "markdown": "convkit.reporters.markdown:render",
}
TERMINAL = {"text": "convkit.reporters.text:render_coloured"}
"""What a terminal gets instead."""


def get_reporter(name: str, *, terminal: bool = False) -> Reporter:
    """The reporter of a name.

    Raises:
        ConvkitError: there is none; the message lists the known names.
    """
    if name not in REPORTERS:
        raise ConvkitError(f"There is no report format {name!r}. Choose one of: {', '.join(REPORTERS)}.")
    target = TERMINAL.get(name) if terminal else None
    module, function = (target or REPORTERS[name]).split(":")
    reporter: Reporter = getattr(import_module(module), function)
    return reporter

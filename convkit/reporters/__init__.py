"""Reporters render a validation report as text; each module is imported only when its format is requested."""

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
"""Reporters that replace those above when the output is a terminal."""


def get_reporter(name: str, *, terminal: bool = False) -> Reporter:
    """Return the reporter for a format name.

    Args:
        terminal: the output is a terminal, so colours are allowed.

    Raises:
        ConvkitError: the format is unknown; the message lists the known ones.
    """
    if name not in REPORTERS:
        raise ConvkitError(f"There is no report format {name!r}. Choose one of: {', '.join(REPORTERS)}.")
    target = TERMINAL.get(name) if terminal else None
    module, function = (target or REPORTERS[name]).split(":")
    reporter: Reporter = getattr(import_module(module), function)
    return reporter

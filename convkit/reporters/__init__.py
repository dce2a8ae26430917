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
}


def get_reporter(name: str) -> Reporter:
    """The reporter of a name.

    Raises:
        ConvkitError: there is none; the message lists the known names.
    """
    if name not in REPORTERS:
        raise ConvkitError(f"There is no report format {name!r}. Choose one of: {', '.join(REPORTERS)}.")
    module, function = REPORTERS[name].split(":")
    reporter: Reporter = getattr(import_module(module), function)
    return reporter

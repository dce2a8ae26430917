"""Errors for the user: each message is one paragraph that ends with a remedy.

Findings about data are not errors (see `convkit.findings`). An error means that the program could not run.
"""


class ConvkitError(Exception):
    """A command could not run; the command line prints only the message and exits with 2."""


class SourceError(ConvkitError):
    """A source is missing, unreadable or not in a supported layout."""


class DatasetError(ConvkitError):
    """A dataset directory is missing, not from convkit, locked or damaged."""


class MissingExtra(ConvkitError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed. Run: pip install 'convkit-vlm[{extra}]'"
        )


class ItemError(Exception):
    """An item of a source cannot become a row; it is quarantined with `rule` and `reason`.

    Raised by `Converter.convert`. It ends the conversion only with `--on_error fail`.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

"""Errors for the person at the terminal: each message is one paragraph that ends in a remedy.

Findings about data are not errors (see `convkit.findings`); an error means that the program could not run.
"""


class ConvkitError(Exception):
    """The program could not do what was asked; the command line prints the message alone and exits with 2."""


class SourceError(ConvkitError):
    """A source is missing, unreadable or not in a layout that the converter knows."""


class DatasetError(ConvkitError):
    """A dataset directory is missing, foreign, locked or damaged."""


class MissingExtra(ConvkitError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed. Run: pip install 'convkit-vlm[{extra}]'"
        )


class ItemError(Exception):
    """One item of a source cannot become a row; it is quarantined under `rule` with `reason`.

    Raised by `Converter.convert`; never reaches the user as an exception unless `--on_error fail` is given.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        self.rule = rule
        self.reason = reason

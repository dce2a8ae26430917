"""Limits on how much may be quarantined, and the account of what was."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic_core import from_json

from convkit.converters.base import Converter, Reject
from convkit.errors import ConvkitError, DatasetError

OnError = Literal["quarantine", "fail"]


DEFAULT_COUNT = 100
MIN_READ_FOR_SHARE = 1000
"""Units that must be read before a share can stop a conversion."""


@dataclass(frozen=True)
class Budget:
    """The most that may be quarantined: a number, a share of what was read, or the larger of both."""

    count: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Parse a number such as `100` or a share such as `5%`.

        Raises:
            ConvkitError: the text is neither.
        """
        try:
            budget = cls(share=float(text[:-1]) / 100) if text.endswith("%") else cls(count=int(text))
        except ValueError:
            budget = cls(count=-1)
        if budget.count < 0 or not 0 <= budget.share <= 1:
            raise ConvkitError(f"--max_errors {text} is neither a number such as 100 nor a share such as 5%.")
        return budget

    def exceeded(self, errors: int, read: int, *, complete: bool) -> bool:
        """Return whether the conversion must stop; a share counts from `MIN_READ_FOR_SHARE` units on, or at the end."""
        return errors > max(self.count, self.share * (read if complete else max(read, MIN_READ_FOR_SHARE)))


def default_budget(converter: type[Converter[Any]]) -> Budget:
    """Return the budget of a conversion without `--max_errors`."""
    return Budget(DEFAULT_COUNT, converter.expected_missing)


@dataclass(frozen=True)
class Policy:
    """How to treat items that cannot become rows.

    Raises:
        ConvkitError: `on_error` is unknown.
    """

    on_error: OnError = "quarantine"
    budget: Budget | None = None
    """None: use `default_budget` of the converter."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ConvkitError(f"on_error must be {' or '.join(get_args(OnError))}, not {self.on_error!r}.")


class RejectSummary:
    """The rejects of a conversion: how many per rule, and the first of each rule."""

    def __init__(self, rejects: Iterable[Reject] = ()) -> None:
        self.units = 0
        self.entries = 0
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Reject] = {}
        for reject in rejects:
            self.add(reject)

    @classmethod
    def read(cls, path: Path) -> "RejectSummary":
        """Summarize a quarantine file.

        Raises:
            DatasetError: the file was changed.
        """
        with path.open("rb") as file:
            try:
                return cls(Reject(**from_json(line)) for line in file)
            except (ValueError, TypeError) as error:
                raise DatasetError(
                    f"{path} is damaged. Restore it, or remove the directory and convert again."
                ) from error

    def add(self, reject: Reject) -> None:
        """Add one reject; one that holds no units, such as an empty class folder, is still listed."""
        self.units += reject.units
        self.entries += 1
        self._counts[reject.rule] += max(reject.units, 1)
        self._first.setdefault(reject.rule, reject)

    def describe(self) -> str:
        """Return the counts per rule, with the first reject of the three most frequent rules."""
        rules = self._counts.most_common()
        parts = [
            f"{count} x {rule} (first: {self._first[rule].address}: {self._first[rule].reason})."
            for rule, count in rules[:3]
        ]
        parts += [f"{count} x {rule}." for rule, count in rules[3:]]
        return " ".join(parts)

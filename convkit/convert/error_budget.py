"""How many items may be quarantined before a conversion stops."""

from dataclasses import dataclass
from typing import Any, Literal

from convkit.converters.base import Converter
from convkit.errors import ConvkitError

OnError = Literal["quarantine", "fail"]


DEFAULT_COUNT = 100


@dataclass(frozen=True)
class Budget:
    """How much may be quarantined before the conversion stops: a number, a share of what was read, or the larger."""

    count: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `100` or `5%`.

        Raises:
            ConvkitError: it is neither.
        """
        try:
            budget = cls(share=float(text[:-1]) / 100) if text.endswith("%") else cls(count=int(text))
        except ValueError:
            budget = cls(count=-1)
        if budget.count < 0 or not 0 <= budget.share <= 1:
            raise ConvkitError(f"--max_errors {text} is neither a number such as 100 nor a share such as 5%.")
        return budget

    def exceeded(self, errors: int, read: int, *, complete: bool) -> bool:
        """A share is judged on a thousand or more, or at the end."""
        return errors > max(self.count, self.share * (read if complete else max(read, 1000)))


def default_budget(converter: type[Converter[Any]]) -> Budget:
    """Where nobody says how much may be quarantined."""
    return Budget(DEFAULT_COUNT, converter.expected_missing)


@dataclass(frozen=True)
class Policy:
    """What to do about items that cannot become rows."""

    on_error: OnError = "quarantine"
    budget: Budget | None = None
    """None: `default_budget` of the converter."""

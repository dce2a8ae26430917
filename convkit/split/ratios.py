"""Parse the shares of the new splits."""

import re
from collections.abc import Sequence
from decimal import Decimal

_EXAMPLE = "train=0.8,val=0.1,test=0.1"


def parse_ratios(value: object) -> object:
    """Parse `train=0.8,val=0.2`, or percentages as in `train=80,val=20`; leave other types to the validator."""
    if not isinstance(value, str):
        return value
    parts = [[side.strip() for side in part.split("=")] for part in value.split(",") if part.strip()]
    if any(len(part) != 2 or not all(part) for part in parts):
        raise ValueError(f"write NAME=SHARE for each split, with commas between: {_corrected(value)}")
    names = [name for name, _ in parts]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{repeated} has two shares")
    shares = [share for _, text in parts if (share := _share(text)) is not None]
    if len(shares) < len(names):
        raise ValueError(f"write a number for each share: {_corrected(value)}")
    fractions = _fractions(shares)
    if min(fractions, default=0) > 0 and max(fractions) > 1:
        raise ValueError(wrong_sum(float(sum(shares))))
    return dict(zip(names, fractions, strict=True))


def _share(text: str) -> Decimal | None:
    """Return the number in a share such as 0.8, 80 or 80%; None if there is none."""
    return Decimal(text.removesuffix("%")) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)%?", text) else None


def _fractions(shares: Sequence[Decimal]) -> list[Decimal]:
    """Return shares as fractions of 1; shares that add up to 100 are percentages."""
    return [share / 100 for share in shares] if sum(shares) == 100 else list(shares)


def _corrected(value: str) -> str:
    """Return the ratios that the text probably means, in the right form; an example if that is unclear."""
    words = re.split(r"[=:,;/\s]+", value.strip())
    shares = [share for word in words if (share := _share(word)) is not None]
    names = [word for word in words if _share(word) is None] or ["train", "val", "test"][: len(shares)]
    fractions = _fractions(shares)
    if len(names) != len(shares) or sum(fractions) != 1:
        return _EXAMPLE
    return ",".join(f"{name}={share.normalize():f}" for name, share in zip(names, fractions, strict=True))


def wrong_sum(total: float) -> str:
    """Describe shares that do not add up to 1."""
    return f"the shares add up to {total:g}, and must add up to 1 (or 100), as in {_EXAMPLE}"

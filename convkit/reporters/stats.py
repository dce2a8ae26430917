"""Render dataset statistics as text tables."""

from collections.abc import Iterator

from convkit.reporters.table import table
from convkit.stats import Distribution, SplitStats, Stats
from convkit.utils.text import printable

_MAX_ANSWER = 60
_BAR = 40


def render(stats: Stats) -> str:
    """Render statistics as text that ends with a newline."""
    lines = (line for split in stats.splits for line in _split(split))
    return "".join(printable(line) + "\n" for line in lines)


def _split(split: SplitStats) -> Iterator[str]:
    answers = split.answers
    yield f"{split.file}: {split.rows:,} rows"
    if split.unsound:
        yield f"  {split.unsound:,} invalid lines are not counted; run convkit validate"
    if split.unreadable:
        yield f"  {split.unreadable:,} image references cannot be read; run convkit validate"
    yield ""
    rows = [
        ("turns per row", split.turns),
        ("images per row", split.images),
        ("image width", split.width),
        ("image height", split.height),
        ("characters per row", split.text),
    ]
    if split.tokens and split.tokens.exact:
        rows.append(("tokens per row", split.tokens.high))
    elif split.tokens:
        rows += [("tokens per row, at least", split.tokens.low), ("tokens per row, at most", split.tokens.high)]
    head = ("", "mean", "min", "p50", "p90", "p99", "max")
    yield from table(head, [(name, *_cells(numbers)) for name, numbers in rows]).splitlines()
    yield ""
    if split.tokens:
        yield from _tokens(split)
    yield f"{answers.count:,} answers, {'' if answers.complete else 'more than '}{answers.distinct:,} distinct"
    if answers.imbalance is not None:
        yield f"the most frequent answer occurs {answers.imbalance:,.1f} times as often as the rarest"
    for answer in answers.top:
        shown = answer.text if len(answer.text) <= _MAX_ANSWER else f"{answer.text[:_MAX_ANSWER]}…"
        yield f"  {answer.count:>9,}  {answer.count / answers.count:6.1%}  {shown}"
    yield ""


def _tokens(split: SplitStats) -> Iterator[str]:
    tokens = split.tokens
    if tokens is None:
        return
    yield f"tokens per row{'' if tokens.exact else ', upper bounds of an estimate'}"
    most = max(tokens.high.bins.values(), default=1)
    for bounds, count in tokens.high.bins.items():
        yield f"  {bounds:>15}  {count:>9,}  {'#' * (count * _BAR // most)}".rstrip()
    if tokens.refused:
        yield f"  {tokens.refused:,} rows have an image shape that the model does not support"
    if tokens.unknown:
        yield f"  {tokens.unknown:,} rows have an image of unknown size"
    yield ""


def _cells(numbers: Distribution) -> list[str]:
    if not numbers.count:
        return ["-"] * 6
    values = (numbers.min, numbers.p50, numbers.p90, numbers.p99, numbers.max)
    return [f"{numbers.mean:,.1f}", *(f"{value:,}" for value in values)]

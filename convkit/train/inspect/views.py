"""Render a row as model input, as terminal text and as an HTML page."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from itertools import groupby

import PIL.Image
from rich.text import Text
from torch import Tensor

from convkit.train.inspect.tokens import Kind, RowView, Token
from convkit.utils.text import pluralize, printable

_MAX_REPEATS = 3
"""More repetitions of a token than this are shown once, with their number."""
_STYLES: dict[Kind, str] = {"context": "", "supervised": "bold green", "image": "cyan"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.7 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
table {{ border-spacing: 0 4px; }} td {{ vertical-align: top; }}
td.where {{ color: #666; text-align: right; padding-right: 1em; white-space: nowrap; user-select: none; }}
.tokens {{ font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.tokens span {{ border-radius: 3px; outline: 1px solid #0002; }}
.supervised {{ background: #b7ebc0; }} .image {{ background: #bfe3f7; }} .context {{ background: #f1f1f1; }}
img {{ margin: 4px; border: 1px solid #0004; max-width: 336px; image-rendering: pixelated; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<p><span class="supervised">supervised</span> <span class="context">context</span> <span class="image">image</span></p>
<table>
{runs}
</table>
{tiles}
</body></html>
"""


def summary(view: RowView) -> Iterator[str]:
    """Yield the lines of the summary: location, counts, and whether the row is a prompt."""
    supervised, images = view.count("supervised"), view.count("image")
    turns, paths = len(view.row.conversations), sum(len(turn.images) for turn in view.row.conversations)
    tokens = len(view.tokens)
    counts = f"{pluralize(turns, 'turn')}, {pluralize(paths, 'image')} in {pluralize(len(view.tiles), 'tile')}"
    yield f"{view.location}: {counts}"
    yield (
        f"{pluralize(tokens, 'token')}: {supervised:,} supervised, {images:,} for images; positions 0 to {tokens - 1:,}"
    )
    if not view.answered:
        yield "the row has no last answer: this is its generation prompt"


def text(view: RowView) -> Text:
    """Render one line per run of tokens: positions, kind, and the tokens separated by bars."""
    rendered = Text(f"row {view.row.id!r}\n" + "\n".join(summary(view)) + "\n\n")
    width = len(str(len(view.tokens)))
    for kind, tokens in view.runs():
        first, last = tokens[0].position, tokens[-1].position
        rendered.append(f"{first:>{width}}-{last:<{width}}  {kind:<10} ")
        rendered.append("|".join(_repeated(tokens)), style=_STYLES[kind])
        rendered.append("\n")
    for shape, group in groupby(enumerate(view.tiles), key=lambda numbered: numbered[1].shape):
        numbers = [number for number, _ in group]
        name = f"tile {numbers[0]}" if len(numbers) == 1 else f"tiles {numbers[0]}-{numbers[-1]}"
        rendered.append(f"{name}: {shape[2]} x {shape[1]} pixels\n")
    return rendered


def page(view: RowView) -> str:
    """Render a self-contained HTML page: runs of tokens with their positions, and the image tiles."""
    return _PAGE.format(
        title=html.escape(f"Row {printable(view.row.id)}"),
        summary="<br>".join(map(html.escape, summary(view))),
        runs="\n".join(_run(kind, tokens) for kind, tokens in view.runs()),
        tiles="\n".join(_img(number, tile) for number, tile in enumerate(view.tiles)),
    )


def _repetitions(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Group consecutive repetitions of a token."""
    for _, group in groupby(tokens, key=lambda token: token.id):
        yield list(group)


def _repeated(tokens: Sequence[Token]) -> Iterator[str]:
    for same in _repetitions(tokens):
        token = printable(same[0].text)
        yield token if len(same) == 1 else f"{token} x{len(same):,}"


def _run(kind: Kind, tokens: Sequence[Token]) -> str:
    spans = "".join(
        _span(shown) for same in _repetitions(tokens) for shown in ([same] if len(same) > _MAX_REPEATS else zip(same))
    )
    where = _positions(tokens)
    return f'<tr class="run"><td class="where">{where}</td><td class="tokens {kind}">{spans}</td></tr>'


def _span(same: Sequence[Token]) -> str:
    """Render a token, or several repetitions of it."""
    token, times = same[0], f" x{len(same):,}" if len(same) > 1 else ""
    shown = html.escape(printable(token.text)) + ("\n" if token.text.endswith("\n") else "") + times
    return f'<span class="{token.kind}" title="position {_positions(same)}, id {token.id}">{shown}</span>'


def _positions(tokens: Sequence[Token]) -> str:
    first, last = tokens[0].position, tokens[-1].position
    return str(first) if first == last else f"{first}-{last}"


def _img(number: int, tile: Tensor) -> str:
    png = io.BytesIO()
    PIL.Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy()).save(png, "PNG")
    name = f"tile {number}: {tile.shape[2]} x {tile.shape[1]} pixels"
    return f'<img alt="{name}" title="{name}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'

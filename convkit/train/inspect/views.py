"""A row as the model sees it, for a terminal and for a browser."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from itertools import groupby

import PIL.Image
from rich.text import Text
from torch import Tensor

from convkit.train.inspect.tokens import Kind, RowView, Token

_FEW = 3
"""Tokens that are repeated more often are shown once, with their number."""
_STYLES: dict[Kind, str] = {"context": "", "trained": "bold green", "image": "cyan"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.7 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
table {{ border-spacing: 0 4px; }} td {{ vertical-align: top; }}
td.where {{ color: #666; text-align: right; padding-right: 1em; white-space: nowrap; user-select: none; }}
.tokens {{ font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.tokens span {{ border-radius: 3px; outline: 1px solid #0002; }}
.trained {{ background: #b7ebc0; }} .image {{ background: #bfe3f7; }} .context {{ background: #f1f1f1; }}
img {{ margin: 4px; border: 1px solid #0004; max-width: 336px; image-rendering: pixelated; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<p><span class="trained">trained on</span> <span class="context">read only</span> <span class="image">image</span></p>
<table>
{runs}
</table>
{tiles}
</body></html>
"""


def summary(view: RowView) -> Iterator[str]:
    """What there is, in words."""
    trained, images = view.count("trained"), view.count("image")
    turns, pictures = len(view.row.conversations), sum(len(turn.images) for turn in view.row.conversations)
    tiles, tokens = len(view.tiles), len(view.tokens)
    yield f"{view.place}: {_counted(turns, 'turn')}, {_counted(pictures, 'image')} in {_counted(tiles, 'tile')}"
    yield f"{_counted(tokens, 'token')}: {trained:,} trained on, {images:,} of images; positions 0 to {tokens - 1:,}"
    if not view.answered:
        yield "without its last answer: this is the prompt for generation"


def text(view: RowView) -> Text:
    """A line for each run of tokens of one kind: positions, kind, and the tokens divided by bars."""
    shown = Text(f"row {view.row.id!r}\n" + "\n".join(summary(view)) + "\n\n")
    width = len(str(len(view.tokens)))
    for kind, tokens in view.runs():
        first, last = tokens[0].position, tokens[-1].position
        shown.append(f"{first:>{width}}-{last:<{width}}  {kind:<8} ")
        shown.append("|".join(_repeated(tokens)), style=_STYLES[kind])
        shown.append("\n")
    for shape, group in groupby(enumerate(view.tiles), key=lambda numbered: numbered[1].shape):
        numbers = [number for number, _ in group]
        name = f"tile {numbers[0]}" if len(numbers) == 1 else f"tiles {numbers[0]}-{numbers[-1]}"
        shown.append(f"{name}: {shape[2]} x {shape[1]} pixels\n")
    return shown


def page(view: RowView) -> str:
    """One file with everything in it: runs of tokens of one kind with their positions, and the tiles."""
    return _PAGE.format(
        title=html.escape(f"Row {_visible(view.row.id)}"),
        summary="<br>".join(map(html.escape, summary(view))),
        runs="\n".join(_run(kind, tokens) for kind, tokens in view.runs()),
        tiles="\n".join(_img(number, tile) for number, tile in enumerate(view.tiles)),
    )


def _same(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Tokens that are repeated side by side."""
    for _, group in groupby(tokens, key=lambda token: token.id):
        yield list(group)


def _repeated(tokens: Sequence[Token]) -> Iterator[str]:
    for same in _same(tokens):
        shown = _visible(same[0].text)
        yield shown if len(same) == 1 else f"{shown} x{len(same):,}"


def _visible(text: str) -> str:
    """Control characters are written out, so that data cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _run(kind: Kind, tokens: Sequence[Token]) -> str:
    spans = "".join(_span(shown) for same in _same(tokens) for shown in ([same] if len(same) > _FEW else zip(same)))
    where = _positions(tokens)
    return f'<tr class="run"><td class="where">{where}</td><td class="tokens {kind}">{spans}</td></tr>'


def _span(same: Sequence[Token]) -> str:
    """One token, or many of a kind at once."""
    token, times = same[0], f" x{len(same):,}" if len(same) > 1 else ""
    shown = html.escape(_visible(token.text)) + ("\n" if token.text.endswith("\n") else "") + times
    return f'<span class="{token.kind}" title="position {_positions(same)}, id {token.id}">{shown}</span>'


def _positions(tokens: Sequence[Token]) -> str:
    first, last = tokens[0].position, tokens[-1].position
    return str(first) if first == last else f"{first}-{last}"


def _img(number: int, tile: Tensor) -> str:
    png = io.BytesIO()
    PIL.Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy()).save(png, "PNG")
    name = f"tile {number}: {tile.shape[2]} x {tile.shape[1]} pixels"
    return f'<img alt="{name}" title="{name}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'

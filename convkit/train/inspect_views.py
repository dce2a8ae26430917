"""A row as the model sees it, for a terminal and for a browser."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from itertools import groupby

import PIL.Image
from rich.text import Text
from torch import Tensor

from convkit.train.inspect import Kind, Token, View

_STYLES: dict[Kind, str] = {"context": "", "trained": "bold green", "image": "cyan"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.7 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
.tokens {{ font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }}
.tokens span {{ border-radius: 3px; outline: 1px solid #0002; }}
.trained {{ background: #b7ebc0; }} .image {{ background: #bfe3f7; }} .context {{ background: #f1f1f1; }}
img {{ margin: 4px; border: 1px solid #0004; max-width: 336px; image-rendering: pixelated; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<p><span class="trained">trained on</span> <span class="context">read only</span> <span class="image">image</span></p>
<div class="tokens">{tokens}</div>
{tiles}
</body></html>
"""


def summary(view: View) -> Iterator[str]:
    """What there is, in words."""
    trained, images = view.count("trained"), view.count("image")
    turns, pictures = len(view.row.conversations), sum(len(turn.images) for turn in view.row.conversations)
    yield f"{view.place}: {turns:,} turns, {pictures:,} images in {len(view.tiles):,} tiles"
    last = len(view.tokens) - 1
    yield f"{last + 1:,} tokens: {trained:,} trained on, {images:,} of images; positions 0 to {last:,}"
    if not view.answered:
        yield "without its last answer: this is the prompt for generation"


def text(view: View) -> Text:
    """A line for each run of tokens of one kind: positions, kind, and the tokens divided by bars."""
    shown = Text(f"row {view.row.id!r}\n" + "\n".join(summary(view)) + "\n\n")
    width = len(str(len(view.tokens)))
    for kind, tokens in view.runs():
        first, last = tokens[0].position, tokens[-1].position
        shown.append(f"{first:>{width}}-{last:<{width}}  {kind:<8} ")
        shown.append("|".join(_repeated(tokens)), style=_STYLES[kind])
        shown.append("\n")
    for number, tile in enumerate(view.tiles):
        shown.append(f"tile {number}: {tile.shape[2]} x {tile.shape[1]} pixels\n")
    return shown


def page(view: View) -> str:
    """One file with everything in it: each token with its position and id, and the tiles."""
    return _PAGE.format(
        title=html.escape(f"Row {view.row.id}"),
        summary="<br>".join(map(html.escape, summary(view))),
        tokens="".join(map(_span, view.tokens)),
        tiles="\n".join(map(_img, view.tiles)),
    )


def _repeated(tokens: Sequence[Token]) -> Iterator[str]:
    for shown, group in groupby(_visible(token.text) for token in tokens):
        times = len(list(group))
        yield shown if times == 1 else f"{shown} x{times:,}"


def _visible(text: str) -> str:
    """Control characters are written out, so that data cannot steer the terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _span(token: Token) -> str:
    shown = html.escape(_visible(token.text)) + ("\n" if token.text.endswith("\n") else "")
    return f'<span class="{token.kind}" title="position {token.position}, id {token.id}">{shown}</span>'


def _img(tile: Tensor) -> str:
    png = io.BytesIO()
    PIL.Image.fromarray(tile.permute(1, 2, 0).contiguous().numpy()).save(png, "PNG")
    return f'<img alt="tile" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'

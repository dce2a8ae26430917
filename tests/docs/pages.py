"""The Markdown pages of the repository: their code blocks, headings and links."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md", ROOT / "tests/README.md"]
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
_MARKDOWN = MarkdownIt("commonmark").enable("table")


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced and indented code blocks of a page, also those inside lists."""
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            yield Block(token.info.split(" ")[0], token.content, (token.map or [0])[0] + 1)


def links(page: Path) -> Iterator[str]:
    """Yield the addresses of all links and images of a page."""
    for token in _tokens(page):
        for child in token.children or ():
            address = child.attrs.get("href" if child.type == "link_open" else "src")
            if address:
                yield str(address)


def code_spans(page: Path) -> Iterator[str]:
    """Yield the inline code of a page."""
    for token in _tokens(page):
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, by the rule of GitHub and of the site."""
    tokens = _tokens(page)
    texts = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", text.replace("`", "").lower()).replace(" ", "-") for text in texts}


def _tokens(page: Path) -> list[Token]:
    text = page.read_text(encoding="utf-8")
    if text.startswith("---\n"):  # front matter: keep the number of lines
        head, _, body = text[4:].partition("\n---\n")
        text = "\n" * (head.count("\n") + 3) + body
    return _MARKDOWN.parse(text)

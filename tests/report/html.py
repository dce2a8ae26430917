"""Parse report pages with html5lib, which parses like browsers and rejects errors in strict mode."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import html5lib

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "div", "p", "h1", "h2"),
    *(
        "h3",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "strong",
        "ul",
        "li",
        "img",
    ),
    *("dl", "dt", "dd", "svg", "desc", "line", "text", "polyline", "circle"),
}


def parse_page(path: Path) -> ET.Element:
    """Return the parse_page page, with tag names without namespaces."""
    tree: ET.Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(path.read_text("utf-8"))
    for element in tree.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return tree


def text(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def tables(tree: ET.Element) -> dict[str, list[list[str]]]:
    found = {}
    for table in tree.iter("table"):
        cells = [[text(cell) for cell in row if cell.tag in ("th", "td")] for row in table.iter("tr")]
        found[text(next(table.iter("caption")))] = cells
    return found


def elements(tree: ET.Element) -> Iterator[ET.Element]:
    return (element for element in tree.iter() if isinstance(element.tag, str))

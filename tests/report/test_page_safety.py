"""The report page loads nothing, escapes all data, and is accessible."""

import base64
import hashlib
import re
from itertools import pairwise
from pathlib import Path

import html5lib
from hypothesis import given
from hypothesis import strategies as st

from convkit import report
from convkit.report import page
from tests.report import run_directories as directories
from tests.report.html import TAGS, elements, parse_page, tables, text


def test_the_page_loads_nothing_and_runs_no_script(run: Path) -> None:
    tree = parse_page(report.write_report(run))
    assert {element.tag for element in elements(tree)} <= TAGS
    for element in elements(tree):
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("href", "style", "action", "srcset", "background", "xlink:href")
            assert name != "src" or value.startswith("data:image/jpeg;base64,")
    (style,) = tree.iter("style")
    assert "url(" not in (style.text or "")
    assert "@import" not in (style.text or "")
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"
    )


def test_the_page_is_accessible(run: Path) -> None:
    tree = parse_page(report.write_report(run))
    levels = [int(element.tag[1]) for element in elements(tree) if re.fullmatch(r"h\d", element.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tree.get("lang") == "en"
    ids = {element.get("id") for element in elements(tree) if element.get("id")}
    for element in elements(tree):
        assert set((element.get("aria-labelledby") or "").split()) <= ids
        if element.tag == "th":
            assert element.get("scope") in ("row", "col")
        if element.tag == "img":
            assert element.get("alt")
        if element.tag == "svg" and not element.get("aria-hidden"):
            assert element.get("role") == "img"
            assert text(next(element.iter("desc")))
    content = tree.find("head/meta[@name='viewport']")
    assert content is not None
    assert "prefers-color-scheme: dark" in (next(tree.iter("style")).text or "")


def test_hostile_data_is_escaped(tmp_path: Path) -> None:
    hostile = directories.HOSTILE
    content = directories.rows(hostile)
    data = directories.dataset(tmp_path / "data", content)
    run = directories.training(tmp_path / hostile.replace("/", ""), data, content, hostile=hostile)
    tree = parse_page(report.write_report(run))
    assert {element.tag for element in elements(tree)} <= TAGS
    assert not [name for element in elements(tree) for name in element.attrib if name.startswith("on")]
    cards = [text(item) for item in tree.iter("li")]
    assert any(f"Prompt Which? {hostile} Prediction bird{hostile} " in card for card in cards)
    assert any(f"Row r5{hostile}, turn 0" in card for card in cards)
    alts = [image.get("alt") or "" for image in tree.iter("img")]
    assert any(alt.endswith(f"5{hostile.replace('/', '')}.png") for alt in alts)
    assert f"cow{hostile}" in [row[0] for row in tables(tree)[f"Classes of pets{hostile}, after step 30"]]
    assert ["model", f"models/{hostile}"] in tables(tree)["Options"]
    assert hostile.replace("/", "") in text(next(tree.iter("h1")))


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_rendered_as_text(value: str) -> None:
    template = page._environment().from_string(
        '<!doctype html><html><head><title>t</title></head><body><p title="{{ value }}">{{ value }}</p></body></html>'
    )
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(template.render(value=value))
    (paragraph,) = tree.iter("p")
    assert (paragraph.text or "", len(paragraph)) == (page.escape_control_characters(value), 0)
    assert paragraph.get("title") == page.escape_control_characters(value)
    assert (
        value.replace("\n", "") != "".join(filter(str.isprintable, value))
        or page.escape_control_characters(value) == value
    )

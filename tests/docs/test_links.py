"""Test that links between the pages of the repository work."""

from pathlib import Path

import pytest

from tests.docs.pages import NAMES, ROOT, anchors, links


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_existing_files_and_headings(name: str) -> None:
    page = ROOT / name
    assert [address for address in links(page) if not _works(page, address)] == []


def _works(page: Path, address: str) -> bool:
    if address.startswith(("https://", "mailto:")):
        return True
    path, _, anchor = address.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target))

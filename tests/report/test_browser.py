"""The report page in a real browser: CONVKIT_CHROMIUM names the program, playwright drives it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convkit import report
from tests.report import run_directories as directories


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = os.environ.get("CONVKIT_CHROMIUM")
    if not program:
        pytest.skip("CONVKIT_CHROMIUM names no Chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, content = tmp_path_factory.mktemp("browser"), directories.rows(directories.HOSTILE)
    data = directories.dataset(folder / "data", content)
    return report.write_report(directories.training(folder / "run", data, content, hostile=directories.HOSTILE))


@pytest.mark.parametrize(
    ("width", "scheme", "paper"), [(1200, "light", "rgb(255, 255, 255)"), (360, "dark", "rgb(20, 23, 26)")]
)
def test_the_page_renders_without_requests_or_errors(
    browser: Any, page: Path, width: int, scheme: str, paper: str
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    events: list[str] = []
    tab.on("console", lambda message: events.append(message.text))
    tab.on("pageerror", lambda error: events.append(str(error)))
    tab.on("dialog", lambda dialog: events.append(dialog.message))
    tab.on("request", lambda request: events.append(request.url[:200]))
    tab.goto(page.as_uri())
    assert [line for line in events if not line.startswith("data:")] == [page.as_uri()]
    assert "Finished after step 30 of 30." in tab.inner_text("header")
    assert directories.HOSTILE in tab.inner_text("body")
    assert tab.evaluate("[...document.images].map(image => image.naturalWidth)") == [192] * 6
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    figures = tab.evaluate("[...document.querySelectorAll('figure > svg')].map(svg => svg.clientHeight > 60)")
    assert figures == [True] * 6
    tab.close()

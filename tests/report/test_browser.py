"""The page in a real browser, where there is one: env CONVKIT_CHROMIUM names its program, playwright drives it."""

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
def test_the_page_is_whole_and_quiet(browser: Any, page: Path, width: int, scheme: str, paper: str) -> None:
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.on("request", lambda request: said.append(request.url[:200]))
    shown.goto(page.as_uri())
    assert [line for line in said if not line.startswith("data:")] == [page.as_uri()]
    assert "Finished after step 30 of 30." in shown.inner_text("header")
    assert directories.HOSTILE in shown.inner_text("body")
    assert shown.evaluate("[...document.images].map(image => image.naturalWidth)") == [192] * 6
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    drawn = shown.evaluate("[...document.querySelectorAll('figure > svg')].map(svg => svg.clientHeight > 60)")
    assert drawn == [True] * 6
    shown.close()

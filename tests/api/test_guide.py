"""The snippets of docs/python.md run in order, and print what the page shows."""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.fixtures.builders import lines, row

PAGE = ROOT / "docs/python.md"
SNIPPETS = [(code, output) for code, output in pairwise(blocks(PAGE)) if code.language == "python"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Callable[[str], Path]) -> Path:
    """Make the working directory that the page describes."""
    for split, count in (("train", 4), ("val", 2)):
        for number, pet in enumerate(("cat", "dog")):
            for index in range(count):
                path = tmp_path / "photos" / split / pet / f"{pet}{index + 10 * (split == 'val')}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                size = (40 + 9 * index + 5 * (split == "val"), 30 + 7 * number)
                image = PIL.Image.new("RGB", size, ("red", "green")[number])
                image.paste((250, 240, 30 * index), (3, 3, 9 + 4 * index, 20))
                image.save(path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/SmolVLM").symlink_to(tiny_checkpoint("smolvlm"))
    (tmp_path / "rows.jsonl").write_bytes(lines(row("a"), row("a")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def run(code: Block, names: dict[str, Any]) -> str:
    """Run a snippet, with the page and line in tracebacks, and return what it prints."""
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile("\n" * code.line + code.text, str(PAGE), "exec"), names)
    return printed.getvalue()


def test_each_snippet_has_its_output() -> None:
    assert len(SNIPPETS) == 12 == sum(block.language == "python" for block in blocks(PAGE))
    assert {output.language for _, output in SNIPPETS} == {"text"}


@pytest.mark.filterwarnings("ignore")  # those of transformers and TRL
def test_the_snippets_print_what_the_page_shows(folder: Path) -> None:
    names: dict[str, Any] = {}
    for code, output in SNIPPETS:
        if "from trl import" in code.text and not find_spec("trl"):
            pytest.skip("needs the extra test: pip install 'convkit-vlm[test]'")
        printed = run(code, names)
        if "trainer.train()" in code.text:  # trainers print their speed
            printed = printed[-len(output.text) :]
        assert printed == output.text, code.text

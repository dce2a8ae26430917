"""Test that the Python examples in docs/models.md run, and that its table lists every model family."""

import re
from pathlib import Path

import pytest

from convkit.train.models import MODEL_FAMILIES
from tests.conftest import ROOT

PAGE = (ROOT / "docs/models.md").read_text()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["tiny-phi3-v", "tiny-qwen3-vl"]


def test_the_table_lists_every_family() -> None:
    table = PAGE.partition("convkit supports transformers")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {"model_type", *MODEL_FAMILIES} - {"pixtral"}
    assert "| `llava`, tower `pixtral` |" in table

"""Test what pages say about the code: paths of modules, and messages."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT, blocks

_MODULE = re.compile(r"(?<![\w/.])((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?|[a-z_0-9]+\.py)(?![\w/-])")
_OUTPUT = {"adapter/", "model/", "images/", "checkpoints/", "docs/rules/"}
"""Folders of datasets and runs, which are not modules."""
_VALUE = "\0"
_FIXED = 15
"""Fixed characters that a message of the code must have to be recognized."""


def test_the_architecture_page_names_modules_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    paths = {path for path in _MODULE.findall(text) if path not in _OUTPUT}
    assert len(paths) > 40
    assert sorted(path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "convkit"))) == []


def _shown_messages() -> list[str]:
    page = ROOT / "docs/troubleshooting.md"
    return [block.text.strip() for block in blocks(page) if block.language == "text"]


@pytest.fixture(scope="module")
def messages() -> list[re.Pattern[str]]:
    """Return the patterns of all texts in the code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "convkit").rglob("*.py"))]
    found = {pattern for tree in trees for pattern in _patterns(tree)}
    return [re.compile(pattern, re.DOTALL) for pattern in found]


@pytest.mark.parametrize("shown", _shown_messages())
def test_a_message_in_troubleshooting_is_one_of_the_code(shown: str, messages: list[re.Pattern[str]]) -> None:
    assert any(message.fullmatch(shown) for message in messages)


def test_messages_that_the_code_does_not_have_are_detected(messages: list[re.Pattern[str]]) -> None:
    assert not any(message.fullmatch("data has no receipt.xml: it was never validated.") for message in messages)


def _patterns(tree: ast.Module) -> Iterator[str]:
    """Yield the pattern of each text, and of each beginning that ends with a sentence."""
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [part.value if isinstance(part, ast.Constant) else _VALUE for part in parts]
        text = "".join(text for text in texts if isinstance(text, str))
        for end in {match.end() for match in re.finditer(r"[.;](?= )|$", text)}:
            if len(text[:end].replace(_VALUE, "").strip()) > _FIXED:
                yield re.escape(text[:end]).replace(re.escape(_VALUE), ".*")

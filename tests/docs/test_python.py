"""Test that Python examples of the documentation compile, and that the names of convkit in them exist."""

import ast
from collections.abc import Iterator
from importlib import import_module, util

import pytest

from tests.docs.pages import NAMES, ROOT, Block, blocks

EXAMPLES = [
    pytest.param(block, id=f"{name}:{block.line}")
    for name in NAMES
    for block in blocks(ROOT / name)
    if block.language == "python"
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_python_example_uses_names_that_exist(example: Block) -> None:
    names = list(_names(ast.parse(example.text)))
    if any(name.startswith("convkit.train.") for name in names) and not util.find_spec("torch"):
        pytest.skip("needs the extra train")
    assert [name for name in names if not _exists(name)] == []


def test_names_that_do_not_exist_are_detected() -> None:
    names = _names(ast.parse("import convkit\nfrom convkit.schema import Rwo\nconvkit.validat(1)\nconvkit.split"))
    assert [name for name in names if not _exists(name)] == ["convkit.schema.Rwo", "convkit.validat"]


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of convkit that an example imports or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "convkit")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "convkit":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("convkit.") and _is_path(node):
            yield ast.unparse(node)


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_path(node.value))


def _exists(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one."""
    try:
        import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        return bool(parent) and _exists(parent) and hasattr(_resolve(parent), attribute)
    return True


def _resolve(name: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        return getattr(_resolve(parent), attribute)

"""The direction of imports, and what must not be loaded before it is needed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "convkit"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

FOUNDATIONS = ["schema", "layout", "errors"]
TRAINING = {
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "safetensors",
    "deepspeed",
    "bitsandbytes",
    "flash_attn",
}
HEAVY = {"cv2", "PIL", "numpy", *TRAINING}
NEVER: list[tuple[str, set[str]]] = [
    # (modules that begin so, what they never import)
    ("converters/", {"convkit.convert", "convkit.engines", "convkit.cli", "convkit.rules", "convkit.validate"}),
    ("sources/", {"convkit.convert", "convkit.converters", "convkit.engines", "convkit.cli"}),
    ("media/", {"convkit.convert", "convkit.converters", "convkit.engines", "convkit.cli", "convkit.rules"}),
    ("engines/", {"convkit.convert", "convkit.converters", "convkit.cli"}),
    ("rules/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters"}),
    ("validate/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters"}),
    ("rows/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.validate"}),
    ("reporters/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.validate"}),
    ("config", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.validate"}),
    ("baseline", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.validate"}),
    ("fix", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.validate"}),
    ("dataset", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.validate", "convkit.rules"}),
    ("convert", {"convkit.cli", "convkit.validate", "convkit.rules"}),
    (
        "train/",
        {
            "convkit.cli",
            "convkit.report",
            "convkit.convert",
            "convkit.converters",
            "convkit.validate",
            "convkit.reporters",
        },
    ),
    ("train/encode", {"convkit.train.models", "torch"}),
    ("train/plan", {"convkit.train", "torch"}),
    ("train/index", {"convkit.train", "torch"}),
    ("train/config", {"convkit.train.models", "convkit.train.run", "torch"}),
    ("train/recipes", {"convkit.train", "torch"}),
    ("train/pack", {"convkit.train.models"}),
    ("train/attention", {"convkit.train.models"}),
    ("metrics/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.validate"}),
    ("report/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.rules", "convkit.validate"}),
    ("record", {"convkit.cli", "convkit.report", "convkit.metrics", "convkit.reporters", "convkit.validate"}),
    ("profiles/", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.media", "convkit.rules"}),
    ("stats", {"convkit.cli", "convkit.convert", "convkit.converters", "convkit.reporters", "convkit.rules"}),
]


def _imports(module: str, *, at_load: bool = False) -> set[str]:
    """Every module that a file imports, anywhere in it; or only what is imported when it is loaded."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse((PACKAGE / f"{module}.py").read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            found.add(str(node.module))
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        if not (at_load and deferred):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


def test_all_modules_are_looked_at() -> None:
    assert {
        "train/models/phi3_v/modeling",
        "schema",
        "convert",
        "media/frames",
        "converters/base",
        "cli/__init__",
    } <= set(MODULES)


@pytest.mark.parametrize("module", FOUNDATIONS)
def test_foundations_know_nothing_of_the_rest(module: str) -> None:
    assert {name for name in _imports(module) if _within(name, "convkit")} == set()


def test_findings_know_the_schema_alone() -> None:
    ours = {name for name in _imports("findings") if _within(name, "convkit")}
    assert {name for name in ours if not _within(name, "convkit.schema")} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("train/")])
def test_training_alone_knows_its_libraries(module: str) -> None:
    libraries = {name.split(".")[0] for name in _imports(module)} & TRAINING
    # An exact count of text needs a tokenizer, though no model.
    assert libraries <= ({"tokenizers"} if module == "profiles/__init__" else set())


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith(("train/", "cli/"))])
def test_training_is_known_to_the_command_line_alone(module: str) -> None:
    assert {name for name in _imports(module) if _within(name, "convkit.train")} == set()


@pytest.mark.parametrize("module", MODULES)
def test_what_is_heavy_is_imported_where_it_is_used(module: str) -> None:
    if not module.startswith("train/"):
        assert {name.split(".")[0] for name in _imports(module, at_load=True)} & HEAVY == set()


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    forbidden = {
        name
        for prefix, never in NEVER
        if module == prefix or (prefix.endswith("/") and module.startswith(prefix))
        for name in _imports(module)
        if any(_within(name, package) for package in never)
    }
    assert forbidden == set()


def test_the_check_of_arrows_sees_imports_inside_functions() -> None:
    assert "cv2" in _imports("media/frames")
    assert "cv2" not in _imports("media/frames", at_load=True)
    assert any(_within(name, "convkit.engines") for name in _imports("convert"))


RUN = """
import json, runpy, sys
sys.argv = ["convkit", *sys.argv[1:]]
try:
    runpy.run_module("convkit" if len(sys.argv) > 1 else "convkit.__init__", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def _loaded(*arguments: str) -> set[str]:
    """The top-level modules that a command loads."""
    result = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",)], ids=["import", "help", "version"])
def test_nothing_slow_is_loaded_for(arguments: tuple[str, ...]) -> None:
    loaded = _loaded(*arguments)
    assert "convkit" in loaded
    assert loaded & (HEAVY | {"pydantic", "rich", "huggingface_hub"}) == set()


WORKER = """
import json, sys
from convkit.rows.parse import parse
from convkit.rows.pieces import Piece
line = b'{"id":"1","source":"s","conversations":[{"images":[],"user":"Hi","assistant":"Hello"}]}\\n'
assert parse((Piece("", 0, len(line), 1, line, 6), 0), max_line=1000, mentions=True).lines == 1
print(json.dumps(sorted(sys.modules)))
"""


def test_a_worker_loads_little_before_its_first_row() -> None:
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", WORKER], cwd=ROOT)))
    assert "convkit.rows.parse" in loaded
    assert (
        loaded & {*HEAVY, "convkit.receipt", "convkit.profiles", "convkit.validate", "convkit.rules.registry"} == set()
    )


@pytest.mark.parametrize(
    "command",
    [
        "convert --help",
        "convert --list",
        "convert ucf101 --help",
        "convert easy-vqa --help",
        "validate --help",
        "stats --help",
        "rule",
        "rule CK201",
        "report --help",
        "score --help",
        "train --help",
        "bench train --help",
        "bench data --help",
        "merge --help",
    ],
)
def test_no_decoder_is_loaded_for(command: str) -> None:
    assert _loaded(*command.split()) & HEAVY == set()


def test_the_registry_names_modules_that_exist() -> None:
    from convkit.converters import TABLE

    for entry in TABLE.values():
        module = entry.target.split(":")[0]
        assert Path(ROOT, *module.split(".")).with_suffix(".py").is_file()

"""The direction of imports, and what must not be loaded before it is needed."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "convkit"
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))

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
STAGES = {"cli", "convert", "converters", "report", "reporters", "rules", "train", "validate"}
"""Packages that only the packages listed in `KNOWN_TO` may import."""
KNOWN_TO = {
    "__init__": STAGES,  # for type checkers only
    "api/": STAGES,
    "dataset": {"train"},  # for `Dataset.to_torch`
    "cli/": STAGES,
    "convert/": {"convert", "converters"},
    "converters/": {"converters"},
    "report/": {"report", "reporters"},
    "reporters/": {"reporters", "rules"},
    "rules/": {"rules"},
    "split/": {"convert", "converters", "rules"},
    "receipt": {"rules"},
    "target_model": {"train"},
    "train/": {"train"},
    "validate/": {"rules", "validate"},
}
NEVER: dict[str, set[str]] = {
    # modules that begin so: what they never import
    "sources/": {"convkit.media"},
    "profiles/": {"convkit.media"},
    "utils/": {"convkit.dataset", "convkit.media", "convkit.metrics", "convkit.profiles", "convkit.sources"},
    "train/models/": {"convkit.train.data", "convkit.train.run", "convkit.train.trainer"},
    "train/models/tokenize": {"torch"},
    "train/models/kernels/": {"convkit.train.models.hf", "convkit.train.models.phi3_v"},
    "train/data/schedule": {"torch", "convkit.train"},
    "train/data/index": {"torch"},
    "train/config": {"convkit.train.models", "convkit.train.run", "torch"},
    "train/recipes": {"convkit.train", "torch"},
}


@cache
def _imports(module: str, *, at_load: bool = False) -> frozenset[str]:
    """Return every module that a file imports anywhere, or only those imported when it is loaded."""
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
    return frozenset(found)


def _within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(f"{package}.")


def _violations(module: str, never: set[str]) -> list[str]:
    """Return "module imports name" for each forbidden import."""
    return [
        f"{module} imports {name}"
        for name in sorted(_imports(module))
        if any(_within(name, package) for package in never)
    ]


def test_all_modules_are_checked() -> None:
    expected = {"train/models/phi3_v/modeling", "schema", "convert/run", "media/frames", "cli/__init__"}
    assert expected <= set(MODULES)


def test_the_foundations_import_nothing_of_ours() -> None:
    assert [line for module in ("schema", "layout", "errors") for line in _violations(module, {"convkit"})] == []


def test_findings_import_the_schema_alone() -> None:
    ours = {name for name in _imports("findings") if _within(name, "convkit")}
    assert {name for name in ours if not _within(name, "convkit.schema")} == set()


def test_only_train_imports_the_training_libraries() -> None:
    # An exact count of text needs a tokenizer, though no model.
    outside = [module for module in MODULES if not module.startswith("train/") and module != "profiles/__init__"]
    assert [line for module in outside for line in _violations(module, TRAINING)] == []
    assert _violations("profiles/__init__", TRAINING - {"tokenizers"}) == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    assert [
        f"{module} loads {library}"
        for module in MODULES
        if not module.startswith("train/")
        for library in sorted({name.split(".")[0] for name in _imports(module, at_load=True)} & HEAVY)
    ] == []


def test_stages_import_one_another_only_as_listed() -> None:
    def known(module: str) -> set[str]:
        return next((names for start, names in KNOWN_TO.items() if module.startswith(start)), set())

    stages = {module: {f"convkit.{name}" for name in STAGES - known(module)} for module in MODULES}
    stages.pop("__main__")
    assert [line for module, never in stages.items() for line in _violations(module, never)] == []


def test_modules_do_not_import_what_they_must_not_know() -> None:
    assert [
        line
        for start, never in NEVER.items()
        for module in MODULES
        if module.startswith(start)
        for line in _violations(module, never)
    ] == []


def test_the_check_sees_imports_inside_functions() -> None:
    assert "cv2" in _imports("media/frames")
    assert "cv2" not in _imports("media/frames", at_load=True)
    assert _violations("convert/run", {"convkit.utils.pool"})


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
from convkit.validate.row_worker import RowJob, parse_rows
from convkit.validate.chunks import RowChunk
line = b'{"id":"1","source":"s","conversations":[{"images":[],"user":"Hi","assistant":"Hello"}]}\\n'
assert parse_rows(RowJob(RowChunk("", 0, len(line), 1, line, 6), 0, 0), max_line=1000, image_refs=True).lines == 1
print(json.dumps(sorted(sys.modules)))
"""


def test_a_worker_loads_little_before_its_first_row() -> None:
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", WORKER], cwd=ROOT)))
    assert "convkit.validate.row_worker" in loaded
    assert (
        loaded & {*HEAVY, "convkit.receipt", "convkit.profiles", "convkit.validate.run", "convkit.rules.registry"}
        == set()
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
    from convkit.converters import CONVERTERS

    for entry in CONVERTERS.values():
        module = entry.target.split(":")[0]
        assert Path(ROOT, *module.split(".")).with_suffix(".py").is_file()

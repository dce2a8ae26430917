"""The layout and the words that docs/architecture.md and CONTRIBUTING.md promise."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

MAX_LINES = 350
MAX_LOOSE_MODULES = {"convkit": 15, "convkit/train": 12}
MAX_UNCLEAR_DOCSTRINGS = 60
UNCLEAR_STARTS = {"What", "Of", "Those", "Likewise", "Whether"}
TERMS = {
    "docs/converters.md": ["data leakage", "frame sampling", "quarantine", "split"],
    "docs/evaluation.md": ["context", "greedy", "max_new_tokens"],
    "docs/metrics.md": ["accuracy", "ANLS", "AUROC", "confidence interval"],
    "docs/models.md": ["chat template", "LoRA adapter", "projector", "vision tower"],
    "docs/performance.md": ["micro-batch", "MFU", "padding", "sequence packing", "throughput"],
    "docs/profiles.md": ["chat template", "token profile"],
    "docs/training.md": [
        "activation (gradient) checkpointing",
        "determinis",
        "fine-tuning",
        "gradient accumulation",
        "label mask",
        "learning-rate schedule",
        "LoRA adapter",
        "micro-batch",
        "mixed precision",
        "padding",
        "rank",
        "resume",
        "sequence packing",
        "sharding",
        "supervised tokens",
        "throughput",
        "vision tower",
        "warmup",
        "weight decay",
        "world size",
    ],
    "docs/validate.md": ["baseline", "data leakage", "deduplication", "near-duplicate", "validation receipt"],
}
"""The standard terms that a reader of each page searches for."""


def _sources() -> list[Path]:
    return [
        path for name in ("convkit", "tests", "benchmarks", "scripts") for path in sorted((ROOT / name).rglob("*.py"))
    ]


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of docstrings, those of attributes included."""
    for statement in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            text = statement.value.value
            if isinstance(text, str):
                yield statement.lineno, text.strip()


def _is_unclear(docstring: str) -> bool:
    words = docstring.partition("\n")[0].split()
    return len(words) < 4 or words[0].rstrip(",.:;") in UNCLEAR_STARTS


def test_first_lines_of_docstrings_say_what_the_thing_is_or_does() -> None:
    unclear = [
        f"{path.relative_to(ROOT)}:{line}: {text.partition(chr(10))[0]}"
        for path in _sources()
        for line, text in _docstrings(path)
        if _is_unclear(text)
    ]
    assert len(unclear) <= MAX_UNCLEAR_DOCSTRINGS, "\n".join(unclear)


def test_unclear_first_lines_are_recognized() -> None:
    assert [
        _is_unclear(text) for text in ("What a row is.\n\nMore.", "Of a prompt.", "Its rows.", "Likewise, for it.")
    ] == [True] * 4
    assert not _is_unclear("Return the rows of a split.")


def test_files_are_short() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in _sources()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_packages_have_few_loose_modules() -> None:
    loose = {name: len(list((ROOT / name).glob("*.py"))) for name in MAX_LOOSE_MODULES}
    assert all(loose[name] <= most for name, most in MAX_LOOSE_MODULES.items()), loose


def test_terms_stand_on_the_page_where_their_reader_looks() -> None:
    pages = {page: " ".join((ROOT / page).read_text("utf-8").lower().split()) for page in TERMS}
    assert [
        f"{page}: {term}" for page, terms in TERMS.items() for term in terms if term.lower() not in pages[page]
    ] == []

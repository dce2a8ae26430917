"""The names inside a dataset directory. No other module spells them."""

from pathlib import Path

MANIFEST = "dataset.json"
RECEIPT = "receipt.json"
QUARANTINE = "quarantine.jsonl"
IMAGES = "images"
ROWS_SUFFIX = ".jsonl"

WORK = ".partial"
"""Everything of an unfinished conversion that is not yet part of the product; gone once it is complete."""


def split_file(name: str, split: str) -> str:
    """The file name of a split's rows."""
    return f"{name}_{split}{ROWS_SUFFIX}"


def row_files(directory: Path) -> list[Path]:
    """The row files of a directory without a manifest, such as the recipe's own output, sorted by name."""
    return sorted(p for p in directory.glob(f"*{ROWS_SUFFIX}") if p.name != QUARANTINE and p.is_file())
